"""What the loaders hand over: one domain's share of a training iteration, or a batch to evaluate."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class DomainBatch(NamedTuple):
    """One domain's share of an iteration; images uint8 RGB NHWC, labels uint8 train ids."""

    view: Tensor | None
    """[B, H, W, 3]: the whole image, flipped and blurred; None when the recipe uses crops alone."""
    view_label: Tensor | None
    """[B, H, W]: its label; source only."""
    weak: Tensor
    """[B, h, w, 3]: the random resized crop."""
    strong: Tensor
    """[B, h, w, 3]: the same crop, colours jittered and blurred."""
    label: Tensor | None
    """[B, h, w]: the crop's label; source only."""
    boxes: Tensor
    """float32 [B, 4]: the crops' (top, left, height, width) in view pixels."""
    class_keys: Tensor
    """float32 [B, C]: uniform random numbers that choose the classes to paste."""
    names: list[str]
    """The samples' names."""

    def map(self, function: Callable[[Tensor], Tensor]) -> DomainBatch:
        """The same batch with `function` of every tensor."""
        return DomainBatch(*(function(field) if isinstance(field, Tensor) else field for field in self))  # type: ignore[arg-type]


class EvaluationBatch(NamedTuple):
    """Images uint8 RGB [B, H, W, 3]; per image its label uint8 [H', W'] at whatever size it was packed."""

    images: Tensor
    labels: list[Tensor]
    names: list[str]
