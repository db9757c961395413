"""DAFormer's context-aware head (Hoyer et al., CVPR '22): maps embedded, upsampled, fused by dilated convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastuda.model.transformer.heads.convolution import Convolution, SeparableConvolution
from fastuda.model.transformer.heads.head import Embeddings, Head, classifier

_DILATIONS = (6, 12, 18)
_DROPOUT = 0.1


class ContextHead(Head):
    """Linear embeddings, the finest first, then one 1×1 and three dilated separable convolutions side by side, and a
    3×3 one over what they found; no branch pools. A tenth of the channels drops."""

    def __init__(self, channels: Sequence[int], num_classes: int, width: int) -> None:
        super().__init__()
        fused = len(channels) * width
        self.embed = Embeddings(channels, width)
        dilated = (SeparableConvolution(fused, width, dilation) for dilation in _DILATIONS)
        self.branches = nn.ModuleList([Convolution(fused, width, 1), *dilated])
        self.bottleneck = Convolution(len(self.branches) * width, width, 3)
        self.drop = nn.Dropout2d(_DROPOUT)
        self.classify = classifier(width, num_classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """float [B, D_i, H_i, W_i] each, the finest first → logits, float [B, C, H', W']."""
        together = torch.cat(self.embed(maps), dim=1)
        context = self.bottleneck(torch.cat([branch(together) for branch in self.branches], dim=1))
        logits: Tensor = self.classify(self.drop(context))
        return logits
