"""A Vision Transformer of a library's layers: every map lies at the stride of its patches.

Dimensions: B images, N tokens, D features, H W pixels, H' W' patches.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn

from fastuda.model.transformer.encoder import Encoder
from fastuda.model.transformer.vit_shape import ViTShape


class VisionTransformer(Encoder):
    """What embeds patches, blocks, and a norm that is applied to every map."""

    one_stride = True

    def __init__(self, shape: ViTShape, patch: int, num_extra_tokens: int) -> None:
        super().__init__()
        self.patch = patch
        self.num_extra_tokens = num_extra_tokens
        """Before those of the patches."""
        self.read = shape.read
        self.channels = (shape.width,) * len(shape.read)
        self.num_blocks = shape.depth
        self.embeddings: nn.Module
        self.layers: nn.ModuleList
        self.norm: nn.Module

    @abstractmethod
    def shared(self, images: Tensor) -> dict[str, Any]:
        """What every block is told beside the tokens."""

    def forward(self, images: Tensor, *, only_last: bool = False) -> list[Tensor]:
        """Maps of float [B, 3, H, W] normalised images, float [B, D, H', W'] each, from the earlier blocks on."""
        size = (images.shape[2] // self.patch, images.shape[3] // self.patch)
        tokens, shared, maps = self.embeddings(images), self.shared(images), []
        for i, layer in enumerate(self.layers):
            tokens = layer(tokens, **shared)
            if i in (self.read[-1:] if only_last else self.read):
                of_patches = self.norm(tokens)[:, self.num_extra_tokens :]
                maps.append(of_patches.transpose(1, 2).unflatten(2, size))
        return maps

    def depth_of(self, name: str) -> int:
        """The last norm goes with the last block."""
        part, _, rest = name.partition(".")
        if part == "layers":
            return int(rest.partition(".")[0]) + 1
        return 0 if part == "embeddings" else self.num_blocks
