"""Gradients where torch's optimisers look for them: on the parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastuda.method.optimizer import parameters_of


class LeafGradients:
    """Those of all that an optimiser moves, as `over_ranks.Gradients`."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._parameters = parameters_of(optimizer)
        self._apart: list[tuple[nn.Parameter, Tensor]] = []

    def latest(self) -> list[Tensor]:
        """Those of the last backward pass, taken off the parameters."""
        found = [(one, one.grad) for one in self._parameters if one.grad is not None]
        for parameter, _ in found:
            parameter.grad = None
        self._apart += found
        return [gradient for _, gradient in found]

    def sums(self) -> list[Tensor]:
        """Those that lie on the parameters."""
        return [one.grad for one in self._parameters if one.grad is not None]

    @torch.no_grad()
    def put_together(self) -> None:
        """Lay the sums of what was taken off on the parameters."""
        for parameter, gradient in self._apart:
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        self._apart = []
