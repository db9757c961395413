"""DeepLab-v2's classifier on an EfficientNet-Lite, a second one on an earlier stage, and a skip from fine features.

Dimensions: B images, C classes, H W pixels, H' W' positions.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fastuda.model.aspp import ASPP
from fastuda.model.efficientnet_lite.backbone import EfficientNetLite
from fastuda.model.efficientnet_lite.block import norm
from fastuda.model.efficientnet_lite.shape import AUXILIARY_STAGE, SKIP_STAGE
from fastuda.model.efficientnet_lite.table import Table
from fastuda.model.grouped_batch_norm import GroupedBatchNorm2d
from fastuda.model.segmenter import Outputs, ParameterGroup, Segmenter
from fastuda.runtime.fast_path import FastPath


class Skip(nn.Module):
    """Scores from fine features: 1×1 to a few channels, BatchNorm, ReLU6, 3×3 to the classes."""

    def __init__(self, in_channels: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.reduce_norm = norm(channels)
        self.classify = nn.Conv2d(channels, num_classes, 3, padding=1)
        nn.init.kaiming_normal_(self.reduce.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.classify.weight, 0, 0.01)
        assert self.classify.bias is not None
        nn.init.zeros_(self.classify.bias)

    def forward(self, fine: Tensor) -> Tensor:
        """float [B, D, H', W'] → float [B, C, H', W']."""
        reduced = F.relu6(self.reduce_norm(self.reduce(fine)), inplace=True)
        scores: Tensor = self.classify(reduced)
        return scores


class LiteSegmenter(Segmenter):
    """The segmentation network; each logit stands for the middle of its share of the pixels."""

    align_corners = False

    def __init__(self, settings: Table, num_classes: int) -> None:
        super().__init__(num_classes, settings)
        self.output_stride = 4 if settings.skip else settings.output_stride
        self.aspp = settings.aspp
        self.backbone = EfficientNetLite(settings.variant, output_stride=settings.output_stride, fine=settings.skip > 0)
        channels = self.backbone.channels
        self.head = ASPP(channels[-1], num_classes, settings.aspp)
        self.auxiliary_head = (
            ASPP(channels[AUXILIARY_STAGE], num_classes, settings.aspp) if settings.auxiliary else None
        )
        self.skip = Skip(channels[SKIP_STAGE], settings.skip, num_classes) if settings.skip else None
        for layer in self.modules():
            if isinstance(layer, GroupedBatchNorm2d):
                layer.momentum = settings.batch_norm_momentum

    def forward(self, images: Tensor, *, features: bool = False) -> Outputs:
        """Low-resolution logits of float [B, 3, H, W] normalised images, a position every `output_stride` pixels."""
        found = self.backbone(images)
        logits = self.head(found.last)
        auxiliary = None if self.auxiliary_head is None else self.auxiliary_head(found.auxiliary)
        read = found.last if features else None
        if self.skip is None:
            return Outputs(logits, auxiliary, read, align_corners=False)
        fine, size = self.skip(found.fine), found.fine.shape[2:]
        logits, auxiliary, read = (
            None if part is None else F.interpolate(part, size=size, mode="bilinear", align_corners=False)
            for part in (logits, auxiliary, read)
        )
        return Outputs(logits + fine, auxiliary, read, align_corners=False)

    def encode(self, images: Tensor) -> Tensor:
        found = self.backbone(images)
        last: Tensor = found.last
        if self.skip is None:
            return last
        return F.interpolate(last, size=found.fine.shape[2:], mode="bilinear", align_corners=False)

    def follow(self, fast: FastPath) -> None:
        """Classifiers as one matrix product or as dilated convolutions; BatchNorm with what is added, or alone."""
        for module in self.modules():
            if isinstance(module, ASPP):
                module.gemm = fast.gemm_aspp
            elif isinstance(module, GroupedBatchNorm2d):
                module.fused = fast.fused_batch_norm

    def cast_modules(self) -> list[nn.Conv2d | nn.Linear]:
        """All convolutions but the classifiers', whose weights are put together anew in every pass."""
        parts = [part for part in (self.backbone, self.skip) if part is not None]
        return [module for part in parts for module in part.modules() if isinstance(module, nn.Conv2d)]

    @property
    def num_branches(self) -> int:
        return len(self.aspp)

    def parameter_groups(self) -> list[ParameterGroup]:
        """The backbone stage by stage, and what is on top of it, which learns faster."""
        stem = [*self.backbone.stem.parameters(), *self.backbone.stem_norm.parameters()]
        layers = [stem, *(list(stage.parameters()) for stage in self.backbone.stages)]
        heads = [part for part in (self.head, self.auxiliary_head, self.skip) if part is not None]
        of_heads = [parameter for head in heads for parameter in head.parameters()]
        groups = [ParameterGroup("backbone", parameters, depth=depth) for depth, parameters in enumerate(layers)]
        return [*groups, ParameterGroup("head", of_heads, depth=len(layers))]
