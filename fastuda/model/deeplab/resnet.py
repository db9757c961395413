"""ResNet feature extractor at output stride 8, in Caffe's or torchvision's arrangement.

Dimensions: B images, H W pixels.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from fastuda.model.grouped_batch_norm import GroupedBatchNorm2d

Depth = Literal[18, 50, 101]
StrideOn = Literal["1x1", "3x3"]
Twice = tuple[Tensor, Tensor]
"""The same values for a block's convolutions and for its shortcut, whose gradients need not be added in between."""

STEM_CHANNELS = 64
BLOCKS: dict[Depth, tuple[int, int, int, int]] = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
"""Residual blocks in layer1 to layer4."""

_STRIDES = (1, 2, 1, 1)
_DILATIONS = (1, 1, 2, 4)


def first_planes(width: float) -> int:
    """Channels of layer1's inner convolutions at a width factor; each later stage has twice as many."""
    return max(1, round(64 * width))


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), GroupedBatchNorm2d(out_channels))


def _joined(layer: GroupedBatchNorm2d, branch: Tensor, shortcut: Tensor, once: bool) -> Twice:
    if not once:
        return layer.twice(branch, shortcut)
    out: Tensor = layer(branch, shortcut, relu=True)
    return out, out


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut; both are dilated and the first strides."""

    expansion: ClassVar[int] = 1

    def __init__(self, in_channels: int, planes: int, *, stride: int, dilation: int, stride_on: StrideOn) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, planes, 3, stride, dilation, dilation, bias=False)
        self.bn1 = GroupedBatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, dilation, dilation, bias=False)
        self.bn2 = GroupedBatchNorm2d(planes)
        self.downsample = _shortcut(in_channels, planes, stride)

    def forward(self, x: Twice, *, once: bool = False) -> Twice:
        """float [B, in_channels, H, W] → float [B, planes, ⌈H / stride⌉, ⌈W / stride⌉], for one reader or two."""
        branch, shortcut = x
        if self.downsample is not None:
            shortcut = self.downsample(shortcut)
        branch = self.bn1(self.conv1(branch), relu=True)
        return _joined(self.bn2, self.conv2(branch), shortcut, once)


class Bottleneck(nn.Module):
    """1×1, dilated 3×3, 1×1 and a shortcut; `stride_on` says which of the first two strides."""

    expansion: ClassVar[int] = 4

    def __init__(self, in_channels: int, planes: int, *, stride: int, dilation: int, stride_on: StrideOn) -> None:
        super().__init__()
        stride_1x1, stride_3x3 = (stride, 1) if stride_on == "1x1" else (1, stride)
        self.conv1 = nn.Conv2d(in_channels, planes, 1, stride_1x1, bias=False)
        self.bn1 = GroupedBatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride_3x3, dilation, dilation, bias=False)
        self.bn2 = GroupedBatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * self.expansion, 1, bias=False)
        self.bn3 = GroupedBatchNorm2d(planes * self.expansion)
        self.downsample = _shortcut(in_channels, planes * self.expansion, stride)

    def forward(self, x: Twice, *, once: bool = False) -> Twice:
        """float [B, in_channels, H, W] → float [B, 4 · planes, ⌈H / stride⌉, ⌈W / stride⌉], for one reader or two."""
        branch, shortcut = x
        if self.downsample is not None:
            shortcut = self.downsample(shortcut)
        branch = self.bn1(self.conv1(branch), relu=True)
        branch = self.bn2(self.conv2(branch), relu=True)
        return _joined(self.bn3, self.conv3(branch), shortcut, once)


class ResNet(nn.Module):
    """ResNet without its classifier: strides 2 and 2 in the stem, 2 in layer2, dilation 2 and 4 after it.

    Protocol rows 17 and 19. Every block of layer3 and layer4, the first too, has the layer's
    dilation. Parameters bear torchvision's names.

    `width` scales every stage but the stem. `stride_on` is "1x1" for Caffe's bottlenecks and "3x3"
    for torchvision's; basic blocks know no difference. The stem's 3×3/2 max-pool uses `ceil_mode`;
    `pool_padding` is 1 in DeepLab's networks and torchvision's, 0 in the Caffe ResNets they came from.
    `out_channels` gives the channels of the two outputs.
    """

    def __init__(self, depth: Depth, *, width: float = 1.0, stride_on: StrideOn = "1x1", pool_padding: int = 1) -> None:
        super().__init__()
        block = BasicBlock if depth == 18 else Bottleneck
        self.conv1 = nn.Conv2d(3, STEM_CHANNELS, 7, 2, 3, bias=False)
        self.bn1 = GroupedBatchNorm2d(STEM_CHANNELS)
        self.bn1.requires_grad_(False)
        self.maxpool = nn.MaxPool2d(3, 2, pool_padding, ceil_mode=True)

        channels, stages = STEM_CHANNELS, []
        for stage, count in enumerate(BLOCKS[depth]):
            planes = first_planes(width) * 2**stage
            blocks: list[nn.Module] = []
            for index in range(count):
                stride = _STRIDES[stage] if index == 0 else 1
                dilation = _DILATIONS[stage]
                blocks.append(block(channels, planes, stride=stride, dilation=dilation, stride_on=stride_on))
                channels = planes * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.out_channels = (channels // 2, channels)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features of layer3 and layer4, float [B, out_channels, H', W'] at a stride of 8 pixels.

        `images` is float [B, 3, H, W], normalised; 512² gives 65² with `pool_padding` 1, 64² with 0.
        """
        x = self.maxpool(self.bn1(self.conv1(images), relu=True))
        layer3: Twice = self.layer3(self.layer2(self.layer1((x, x))))
        *blocks, last = self.layer4
        inner = layer3
        for block in blocks:
            inner = block(inner)
        return layer3[0], last(inner, once=True)[0]
