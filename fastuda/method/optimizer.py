"""SGD and its schedule (protocol row 21), and as torch runs it on a list that names parameters repeatedly."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fastuda.model.deeplab import DeepLabV2
from fastuda.recipe import Optimizer

USUAL_UPDATES = 3
"""How often the released optimiser's list names most backbone parameters."""

ParameterGroup = dict[str, Any]
"""torch's: `params`, `lr` as a scalar tensor, and here `updates`, how often the list names each parameter."""


def made_optimizer(student: DeepLabV2, settings: Optimizer, iteration: Tensor) -> torch.optim.SGD:
    """SGD with one group a learning rate or, as released, one a number of updates; the heads' last.

    `iteration` is an int64 scalar on the student's device: iterations done, whoever counts them.
    """
    backbone, heads = student.parameter_groups()

    def group(parameters: list[nn.Parameter], rate: float, updates: int = 1) -> ParameterGroup:
        return {"params": parameters, "lr": torch.tensor(rate, device=iteration.device), "updates": updates}

    momentum, decay = settings.momentum, settings.weight_decay
    if settings.backbone_updates == "one":
        groups = [group(backbone, settings.lr_backbone), group(heads, settings.lr_head)]
        return torch.optim.SGD(groups, momentum=momentum, weight_decay=decay, fused=True)
    listed = student.times_listed()
    by_updates = {times: [p for p in backbone if listed[p] == times] for times in sorted(set(listed.values()))}
    groups = [group(own, _highest_backbone(settings), times) for times, own in by_updates.items() if own]
    return RepeatedSGD([*groups, group(heads, settings.lr_head)], iteration, momentum=momentum, weight_decay=decay)


def set_rates(rates: list[Tensor], iteration: Tensor, num_iterations: int, settings: Optimizer) -> None:
    """Write lr · ramp · (1 − iteration / iterations) ** power into the groups' rates, scalar tensors, in place.

    `iteration` is an int64 scalar on their device: iterations done.
    """
    progress = iteration.double() / num_iterations
    factor = (1 - progress).clamp(min=0) ** settings.poly_power
    if settings.ramp_up:
        factor = factor * ((iteration + 1) / settings.ramp_up).clamp(max=1)
    *backbone, heads = rates
    for rate in backbone:
        rate.copy_(_highest_backbone(settings) * factor)
    heads.copy_(settings.lr_head * factor)


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


def _highest_backbone(settings: Optimizer) -> float:
    """The backbone's rate of one update before the schedule: a third of an iteration's where there are three."""
    return settings.lr_backbone if settings.backbone_updates == "one" else settings.lr_backbone / USUAL_UPDATES
