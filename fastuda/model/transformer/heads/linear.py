"""The plainest head: one 1×1 convolution on the last map."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fastuda.model.transformer.heads.head import Head, classifier, upsampled


class LinearHead(Head):
    """Scores of the deepest features, upsampled to the finest map where that is finer."""

    def __init__(self, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.classify = classifier(channels[-1], num_classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """float [B, D_i, H_i, W_i] each, the finest first → logits, float [B, C, H', W']."""
        return upsampled(self.classify(maps[-1]), maps[0].shape[2:])
