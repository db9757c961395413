"""DeepLab-v2: a dilated ResNet, a sum of dilated convolutions as classifier, and a second one on layer3.

Dimensions: B images, C classes, H W pixels, H' W' positions at a stride of 8 pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torch import Tensor, nn

from fastuda.model.aspp import ASPP
from fastuda.model.deeplab.resnet import Depth, ResNet, StrideOn
from fastuda.model.grouped_batch_norm import GroupedBatchNorm2d
from fastuda.model.segmenter import Outputs, ParameterGroup, Segmenter
from fastuda.recipe.model import InputConvention
from fastuda.runtime.fast_path import FastPath


class DeepLabV2(Segmenter):
    """The segmentation network (protocol rows 16-19).

    `depth`, `width`, `stride_on` and `pool_padding` are the backbone's, see `ResNet`; `aspp` holds
    the classifier's dilations, (6, 12) for weights released by this lineage of code (protocol
    row 18); `auxiliary` adds the classifier on layer3. Without weights the backbone is random.
    """

    output_stride = 8

    def __init__(
        self,
        num_classes: int,
        *,
        depth: Depth = 101,
        width: float = 1.0,
        stride_on: StrideOn = "1x1",
        pool_padding: int = 1,
        aspp: Sequence[int] = (6, 12, 18, 24),
        auxiliary: bool = True,
        input: InputConvention = "rgb-imagenet",
    ) -> None:
        super().__init__(num_classes)
        self.input: InputConvention = input
        self.depth: Depth = depth
        self.width = width
        self.stride_on: StrideOn = stride_on
        self.pool_padding = pool_padding
        self.aspp = tuple(aspp)
        self.backbone = ResNet(depth, width=width, stride_on=stride_on, pool_padding=pool_padding)
        layer3_channels, layer4_channels = self.backbone.out_channels
        self.head = ASPP(layer4_channels, num_classes, aspp)
        self.auxiliary_head = ASPP(layer3_channels, num_classes, aspp) if auxiliary else None

    def forward(self, images: Tensor, *, features: bool = False) -> Outputs:
        """Low-resolution logits of float [B, 3, H, W] normalised images; 512² gives 65² positions."""
        layer3, layer4 = self.backbone(images)
        auxiliary = None if self.auxiliary_head is None else self.auxiliary_head(layer3)
        return Outputs(self.head(layer4), auxiliary, layer4 if features else None)

    def encode(self, images: Tensor) -> Tensor:
        layer4: Tensor = self.backbone(images)[1]
        return layer4

    def describe(self) -> dict[str, object]:
        """What the tensors do not tell; depth, width and heads they do."""
        return {
            "input": self.input,
            "stride_on": self.stride_on,
            "pool_padding": self.pool_padding,
            "aspp": self.aspp,
        }

    def follow(self, fast: FastPath) -> None:
        """Classifiers as one matrix product or as dilated convolutions; BatchNorm with what follows it, or alone."""
        self.set_gemm_aspp(fast.gemm_aspp)
        self.set_fused_batch_norm(fast.fused_batch_norm)

    def set_gemm_aspp(self, gemm: bool) -> None:
        """Compute each classifier as one matrix product (see `ASPP`) or as dilated convolutions."""
        self.head.gemm = gemm
        if self.auxiliary_head is not None:
            self.auxiliary_head.gemm = gemm

    def set_fused_batch_norm(self, fused: bool) -> None:
        """Compute each BatchNorm and the addition and ReLU behind it in one call in training passes, or one by one."""
        for module in self.modules():
            if isinstance(module, GroupedBatchNorm2d):
                module.fused = fused

    def cast_modules(self) -> list[nn.Conv2d | nn.Linear]:
        """The backbone's convolutions: the classifiers' weights are put together anew in every pass."""
        return [module for module in self.backbone.modules() if isinstance(module, nn.Conv2d)]

    @property
    def num_branches(self) -> int:
        return len(self.aspp)

    def parameter_groups(self) -> list[ParameterGroup]:
        """The backbone layer by layer, and the heads, which learn faster (protocol row 21)."""
        by_depth: dict[int, list[nn.Parameter]] = {}
        for name, parameter in self.backbone.named_parameters():
            if parameter.requires_grad:
                by_depth.setdefault(_depth(name), []).append(parameter)
        heads = [head for head in (self.head, self.auxiliary_head) if head is not None]
        of_heads = [parameter for head in heads for parameter in head.parameters() if parameter.requires_grad]
        groups = [ParameterGroup("backbone", parameters, depth=depth) for depth, parameters in by_depth.items()]
        return [*groups, ParameterGroup("head", of_heads, depth=_HEAD_DEPTH)]

    def times_listed(self) -> Counter[nn.Parameter]:
        """How often the released optimiser's list names each of the backbone's parameters (protocol row 21).

        The list is made layer by layer, and within a layer each module adds all parameters below it: once for the
        layer, once for the block, once for a shortcut's pair, once for the convolution or norm itself.
        """
        modules = (module for layer in self.backbone.children() for module in layer.modules())
        return Counter(parameter for module in modules for parameter in module.parameters())


_HEAD_DEPTH = 5


def _depth(name: str) -> int:
    """The number of a backbone parameter's layer: 0 for the stem, 1 to 4 after it."""
    return int(name[len("layer")]) if name.startswith("layer") else 0
