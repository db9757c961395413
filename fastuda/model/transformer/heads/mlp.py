"""SegFormer's head (Xie et al., NeurIPS '21): maps embedded, upsampled, fused by a 1×1 convolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastuda.model.transformer.heads.convolution import Convolution
from fastuda.model.transformer.heads.head import Embeddings, Head, classifier

_DROPOUT = 0.1


class MLPHead(Head):
    """Linear embeddings, the deepest first where they are fused, as released; a tenth of the channels drops."""

    def __init__(self, channels: Sequence[int], num_classes: int, width: int) -> None:
        super().__init__()
        self.embed = Embeddings(channels, width)
        self.fuse = Convolution(len(channels) * width, width, 1)
        self.drop = nn.Dropout2d(_DROPOUT)
        self.classify = classifier(width, num_classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """float [B, D_i, H_i, W_i] each, the finest first → logits, float [B, C, H', W']."""
        fused = self.fuse(torch.cat(self.embed(maps)[::-1], dim=1))
        logits: Tensor = self.classify(self.drop(fused))
        return logits
