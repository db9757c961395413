"""What an encoder is to the networks that are made of one and a head.

Dimensions: B images, D_i H_i W_i features and positions of map i, H W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """From images to feature maps."""

    channels: Sequence[int]
    """Features of each map, the finest first."""
    num_blocks: int
    one_stride: ClassVar[bool] = False
    """Whether all maps lie at the same stride, so that a head of the last needs no other."""

    @abstractmethod
    def forward(self, images: Tensor, *, only_last: bool = False) -> list[Tensor]:
        """Maps of float [B, 3, H, W] normalised images, float [B, D_i, H_i, W_i] each, the finest first; or the last
        alone."""

    @abstractmethod
    def depth_of(self, name: str) -> int:
        """How far from the input the parameter of that name lies: 0 what embeds patches, 1 for the first block."""
