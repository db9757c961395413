"""SGD as torch runs it on a list that names parameters repeatedly, as the released code's does (protocol row 21)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

ParameterGroup = dict[str, Any]
"""torch's: `params`, `lr` as a scalar tensor, and here `updates`, how often the list names each parameter."""


class RepeatedSGD(torch.optim.SGD):
    """torch's fused SGD, whose groups are updated `updates` times in a step.

    Each time the gradient is the same, the weight is what the update before left, and so is the momentum; but in the
    first iteration, when torch has no momentum yet, every update starts without. torch itself takes such a list with
    a warning, and on a GPU updates all entries at once, which is not what the released code's version did.
    """

    def __init__(
        self, groups: Iterable[ParameterGroup], iteration: Tensor, *, momentum: float, weight_decay: float
    ) -> None:
        """`iteration`, int64 scalar on the parameters' device, counts finished ones; it is read at every step."""
        super().__init__(groups, momentum=momentum, weight_decay=weight_decay, fused=True)
        self._iteration = iteration

    def __getstate__(self) -> dict[str, Any]:
        """torch's own has no attributes but its own: a copy would lack the iteration."""
        return {**super().__getstate__(), "_iteration": self._iteration}

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every group as often as it says; without `closure`, which would move the weights in between."""
        assert closure is None
        groups = self.param_groups
        try:
            for update in range(max(group["updates"] for group in groups)):
                self.param_groups = [group for group in groups if group["updates"] > update]
                if update > 0:
                    self._forget_first_momentum()
                super().step()
        finally:
            self.param_groups = groups
        return None

    @torch.no_grad()
    def _forget_first_momentum(self) -> None:
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        momenta = [self.state[p]["momentum_buffer"] for p in parameters if "momentum_buffer" in self.state[p]]
        if momenta:
            torch._foreach_mul_(momenta, (self._iteration > 0).to(momenta[0].dtype))
