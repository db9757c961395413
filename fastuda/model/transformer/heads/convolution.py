"""A convolution with BatchNorm and ReLU behind it, and the same as a depthwise and a pointwise one."""

from __future__ import annotations

from torch import Tensor, nn

from fastuda.model.grouped_batch_norm import GroupedBatchNorm2d


class Convolution(nn.Module):
    """Convolution without bias that keeps the size, BatchNorm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, dilation: int = 1, groups: int = 1) -> None:
        super().__init__()
        around = kernel // 2 * dilation
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, padding=around, dilation=dilation, groups=groups, bias=False
        )
        self.norm = GroupedBatchNorm2d(out_channels)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """float [B, in_channels, H, W] → float [B, out_channels, H, W]."""
        activated: Tensor = self.norm(self.conv(x), relu=True)
        return activated


class SeparableConvolution(nn.Module):
    """A dilated 3×3 convolution, a channel at a time, then a 1×1 one over all; BatchNorm and ReLU behind each."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int) -> None:
        super().__init__()
        self.depthwise = Convolution(in_channels, in_channels, 3, dilation, groups=in_channels)
        self.pointwise = Convolution(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """float [B, in_channels, H, W] → float [B, out_channels, H, W]."""
        found: Tensor = self.pointwise(self.depthwise(x))
        return found
