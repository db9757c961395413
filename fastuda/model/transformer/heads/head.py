"""What every head is: from feature maps to class scores at the finest one's resolution.

Dimensions: B images, C classes, D_i H_i W_i features and positions of map i, H' W' positions of the finest map.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class Head(nn.Module, ABC):
    """Reads feature maps, the finest first."""

    @abstractmethod
    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """float [B, D_i, H_i, W_i] each → logits, float [B, C, H', W']."""


class Embeddings(nn.ModuleList):
    """A linear layer a map, from its features to as many of each."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__(nn.Linear(one, width) for one in channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """float [B, D_i, H_i, W_i] each → float [B, width, H', W'] each, in their order."""
        size = maps[0].shape[2:]
        embedded = (
            layer(features.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, features.shape[2:])
            for layer, features in zip(self, maps, strict=True)
        )
        return [upsampled(features, size) for features in embedded]


def upsampled(features: Tensor, size: Sequence[int]) -> Tensor:
    """float [B, D, H, W] → float [B, D, *size], bilinear; itself where it has that size."""
    if features.shape[2:] == size:
        return features
    return F.interpolate(features, size=tuple(size), mode="bilinear", align_corners=False)


def classifier(in_channels: int, num_classes: int) -> nn.Conv2d:
    """A 1×1 convolution whose first answers are nearly alike for all classes."""
    layer = nn.Conv2d(in_channels, num_classes, 1)
    nn.init.normal_(layer.weight, 0, 0.01)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
