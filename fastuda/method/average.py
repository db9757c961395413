"""The average of the student's weights: how much of it an iteration keeps (protocol row 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


@dataclass(frozen=True)
class Average:
    """An exponential moving average; everything it needs lies on the weights' device."""

    decay: float
    """Share of the average that an iteration keeps, at most."""
    rises: bool = False
    """Whether the share rises to `decay` as 1 − 1 / (t + 1), t being the iterations done with this one, as in Mean
    Teacher (Tarvainen and Valpola, NeurIPS 2017): the first steps are then soon forgotten."""

    def moves(self, iteration: Tensor) -> float | Tensor:
        """Share of the weights in the average that an iteration's end makes: a number, or a float64 scalar.

        `iteration`, int64 scalar, counts the iterations finished before this one.
        """
        if not self.rises:
            return 1 - self.decay
        return (1 / (iteration.double() + 2)).clamp(min=1 - self.decay)

    def update(self, averages: Sequence[Tensor], weights: Sequence[Tensor], iteration: Tensor) -> None:
        """Move the averages towards the weights, in place."""
        if not self.rises:
            get_ema_multi_avg_fn(self.decay)(list(averages), list(weights), iteration)  # type: ignore[no-untyped-call]
            return
        moved = self.moves(iteration)
        assert isinstance(moved, Tensor)
        differences = torch._foreach_sub(list(weights), list(averages))
        torch._foreach_mul_(differences, moved.to(differences[0].dtype))
        torch._foreach_add_(list(averages), differences)
