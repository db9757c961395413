"""DeepLab-v2: a dilated ResNet, a sum of dilated convolutions as classifier, and a second one on layer3.

Dimensions: B images, C classes, H W pixels, H' W' positions at a stride of 8 pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from fastuda.model.aspp import ASPP
from fastuda.model.batch_norm import GroupedBatchNorm2d
from fastuda.model.resnet import Depth, ResNet, StrideOn


class Logits(NamedTuple):
    """Class scores before the softmax, at low resolution."""

    main: Tensor
    """float [B, C, H', W'], from layer4."""
    auxiliary: Tensor | None
    """float [B, C, H', W'], from layer3; None without the auxiliary head."""


class DeepLabV2(nn.Module):
    """The segmentation network (protocol rows 16-19).

    `depth`, `width`, `stride_on` and `pool_padding` are the backbone's, see `ResNet`; `aspp` holds
    the classifier's dilations, (6, 12) for weights released by this lineage of code (protocol
    row 18); `auxiliary` adds the classifier on layer3. Without weights the backbone is random.
    """

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
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.depth: Depth = depth
        self.width = width
        self.stride_on: StrideOn = stride_on
        self.pool_padding = pool_padding
        self.aspp = tuple(aspp)
        self.backbone = ResNet(depth, width=width, stride_on=stride_on, pool_padding=pool_padding)
        layer3_channels, layer4_channels = self.backbone.out_channels
        self.head = ASPP(layer4_channels, num_classes, aspp)
        self.auxiliary_head = ASPP(layer3_channels, num_classes, aspp) if auxiliary else None

    def forward(self, images: Tensor) -> Logits:
        """Low-resolution logits of float [B, 3, H, W] normalised images; 512² gives 65² positions."""
        layer3, layer4 = self.backbone(images)
        auxiliary = None if self.auxiliary_head is None else self.auxiliary_head(layer3)
        return Logits(self.head(layer4), auxiliary)

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

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """The trained parameters of the backbone and of the heads, which learn faster (protocol row 21)."""
        backbone = list(self.backbone.parameters())
        of_backbone = {id(parameter) for parameter in backbone}
        heads = [parameter for parameter in self.parameters() if id(parameter) not in of_backbone]
        return [p for p in backbone if p.requires_grad], [p for p in heads if p.requires_grad]

    def times_listed(self) -> dict[nn.Parameter, int]:
        """How often the released optimiser's list names each of the backbone's parameters (protocol row 21).

        The list is made layer by layer, and within a layer each module adds all parameters below it: once for the
        layer, once for the block, once for a shortcut's pair, once for the convolution or norm itself.
        """
        modules = (module for layer in self.backbone.children() for module in layer.modules())
        return Counter(parameter for module in modules for parameter in module.parameters())
