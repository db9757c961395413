"""Learning rates over a stage, computed on the device from the iteration's number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fastuda.recipe import Optimizer


@dataclass(frozen=True)
class Schedule:
    """The rate of each parameter group, before and after the factor that falls with the iterations."""

    settings: Optimizer
    base_rates: tuple[float, ...]
    """A group's rate at the factor 1, in the order of the optimiser's groups."""
    num_iterations: int

    def write(self, rates: Sequence[Tensor], iteration: Tensor) -> None:
        """Write base rate · ramp · (1 − t) ** power, or · (1 + cos πt) / 2, into the groups' scalar tensors, in place.

        `iteration` is an int64 scalar on their device: iterations done; t is its share of all.
        """
        settings = self.settings
        progress = iteration.double() / self.num_iterations
        if settings.schedule == "poly":
            factor = (1 - progress).clamp(min=0) ** settings.poly_power
        else:
            factor = (1 + (math.pi * progress.clamp(max=1)).cos()) / 2
        if settings.ramp_up:
            factor = factor * ((iteration + 1) / settings.ramp_up).clamp(max=1)
        for rate, base in zip(rates, self.base_rates, strict=True):
            rate.copy_(base * factor)
