"""EfficientNet-Lite without its classifier, dilated to a stride of 8 or 16 pixels.

Dimensions: B images, H W pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from fastuda.model.efficientnet_lite.block import Block, SameConv2d, norm
from fastuda.model.efficientnet_lite.shape import AUXILIARY_STAGE, SKIP_STAGE, STEM_CHANNELS, Variant, stages_of


class Features(NamedTuple):
    """What the classifiers read."""

    fine: Tensor
    """float [B, D, ⌈H / 4⌉, ⌈W / 4⌉]."""
    auxiliary: Tensor
    """float [B, D, H', W'] at the output stride."""
    last: Tensor
    """float [B, D, H', W'] at the output stride."""


class EfficientNetLite(nn.Module):
    """The stem and seven stages; what lies beyond `output_stride` dilates where the original strides.

    A position of the output stands for a square of the image, and ought to look at its middle. By TensorFlow's padding
    it would look at that square's far corner: so all but the last stride pad the other way, which leaves it half a
    pixel off; with `fine` features the stem does not, so that those are half a pixel off too, and the last 1.5.
    """

    def __init__(self, variant: Variant, *, output_stride: int, fine: bool = False) -> None:
        super().__init__()
        self.stem = SameConv2d(3, STEM_CHANNELS, 3, stride=2)
        self.stem_norm = norm(STEM_CHANNELS)
        channels, stride, dilation, stages = STEM_CHANNELS, 2, 1, []
        strided, self.channels = [self.stem], []
        for stage in stages_of(variant):
            blocks = []
            for i in range(stage.repeats):
                strides = i == 0 and stage.stride == 2
                dilates = strides and stride == output_stride
                block = Block(
                    channels, stage.channels, kernel=stage.kernel, stride=2 if strides and not dilates else 1,
                    dilation=dilation, expansion=stage.expansion,
                )  # fmt: skip
                block.adds = i > 0
                if dilates:  # its own taps lie as they were: only what comes after it saw every second position
                    dilation *= 2
                elif strides:
                    stride *= 2
                    strided.append(block.depthwise)
                channels = stage.channels
                blocks.append(block)
            stages.append(nn.Sequential(*blocks))
            self.channels.append(channels)
        self.stages = nn.ModuleList(stages)
        strided[-1].trailing = True
        self.stem.trailing = fine
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] ** 2 * module.out_channels // module.groups
                nn.init.normal_(module.weight, 0, (2 / fan_out) ** 0.5)

    def forward(self, images: Tensor) -> Features:
        """Features of float [B, 3, H, W] normalised images."""
        x = F.relu6(self.stem_norm(self.stem(images)), inplace=True)
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return Features(found[SKIP_STAGE], found[AUXILIARY_STAGE], x)
