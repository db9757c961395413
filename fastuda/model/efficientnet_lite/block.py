"""EfficientNet-Lite's block, and convolutions that stride as TensorFlow's do.

Dimensions: B images, H W positions.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fastuda.model.grouped_batch_norm import GroupedBatchNorm2d

_EPS = 1e-3


def norm(channels: int) -> GroupedBatchNorm2d:
    """BatchNorm with the constant that the published weights were trained with."""
    layer = GroupedBatchNorm2d(channels)
    layer.eps = _EPS
    return layer


class SameConv2d(nn.Conv2d):
    """A convolution to ⌈H / stride⌉ by ⌈W / stride⌉ positions, without bias.

    At a stride of 2 an even side has one pixel of padding more at one end than at the other. `trailing` puts it at the
    far end, as TensorFlow's "same" has it, so that position i looks at pixel 2i + 1; else it looks at pixel 2i. Either
    way the same filters see the image, one pixel apart.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, dilation: int = 1, groups: int = 1
    ) -> None:
        around = kernel // 2 * dilation
        super().__init__(in_channels, out_channels, kernel, stride, around, dilation, groups, bias=False)
        self.trailing = False

    def forward(self, input: Tensor) -> Tensor:
        """float [B, in_channels, H, W] → float [B, out_channels, ⌈H / stride⌉, ⌈W / stride⌉]."""
        if self.stride[0] == 1 or not self.trailing:
            return super().forward(input)
        height, width = input.shape[2:]
        around = self.kernel_size[0] // 2
        # Nearer by one where the side is even; the padding of the other end stays as it is.
        nearer = (around - 1 + width % 2, around, around - 1 + height % 2, around)
        padded = F.pad(input, nearer)
        return F.conv2d(padded, self.weight, None, self.stride, 0, self.dilation, self.groups)


class Block(nn.Module):
    """Expansion 1×1, depthwise convolution, projection 1×1, and the input added where shapes allow (MobileNet-v2)."""

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel: int, stride: int, dilation: int, expansion: int
    ) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.expand = nn.Conv2d(in_channels, inner, 1, bias=False) if expansion > 1 else None
        self.expand_norm = norm(inner) if expansion > 1 else None
        self.depthwise = SameConv2d(inner, inner, kernel, stride, dilation, groups=inner)
        self.depthwise_norm = norm(inner)
        self.project = nn.Conv2d(inner, out_channels, 1, bias=False)
        self.project_norm = norm(out_channels)
        self.adds = False
        """Whether the input is added: not in a stage's first block, whose stride may have become a dilation."""

    def forward(self, x: Tensor) -> Tensor:
        """float [B, in_channels, H, W] → float [B, out_channels, ⌈H / stride⌉, ⌈W / stride⌉]."""
        inner = x
        if self.expand is not None and self.expand_norm is not None:
            inner = F.relu6(self.expand_norm(self.expand(inner)), inplace=True)
        inner = F.relu6(self.depthwise_norm(self.depthwise(inner)), inplace=True)
        projected: Tensor = self.project_norm(self.project(inner), x if self.adds else None)
        return projected
