"""From a recipe's table to torch's optimiser: SGD (protocol row 21) or AdamW, a rate a parameter group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fastuda.method.repeated_sgd import RepeatedSGD
from fastuda.model.segmenter import ParameterGroup, Segmenter
from fastuda.recipe import AdamW, Optimizer, Sgd

USUAL_UPDATES = 3
"""How often the released optimiser's list names most backbone parameters."""


def made_optimizer(
    student: Segmenter, settings: Optimizer, iteration: Tensor, *, flat: bool = False
) -> torch.optim.Optimizer:
    """torch's optimiser with its whole state there from the beginning, so that no step allocates what the next needs.

    Its groups hold, beside torch's entries, `base_rate`, the rate before the schedule, and `updates`, how often an
    iteration moves each parameter. `iteration` is an int64 scalar on the student's device: iterations done, whoever
    counts them. `flat` is whether updates are flat. Raises UsageError for repeated updates of a network that the
    release does not have, and ValueError for one whose groups do not list every trained parameter once.
    """
    _check_groups(student)
    optimizer = _optimizer(list(_groups(student, settings, iteration.device)), settings, iteration)
    for parameter in parameters_of(optimizer):
        for kind in remembered(settings, flat=flat):
            zeros = torch.zeros((), device=parameter.device) if kind == "step" else torch.zeros_like(parameter)
            optimizer.state[parameter][kind] = zeros
    return optimizer


def _check_groups(student: Segmenter) -> None:
    names = {parameter: name for name, parameter in student.named_parameters()}
    listed = Counter(parameter for group in student.parameter_groups() for parameter in group.parameters)
    wrong = [
        f"{name} {listed[one]} times"
        for one, name in names.items()
        if listed[one] > 1 or (not listed[one] and one.requires_grad)
    ]
    wrong += [f"one of shape {tuple(one.shape)} that is none of its own" for one in listed if one not in names]
    if wrong:
        kind = type(student).__name__
        raise ValueError(
            f"{kind}.parameter_groups lists {', '.join(wrong[:3])}; every trained parameter belongs there once"
        )


def _optimizer(groups: list[dict[str, Any]], settings: Optimizer, iteration: Tensor) -> torch.optim.Optimizer:
    if isinstance(settings, AdamW):
        betas, capturable = settings.betas, iteration.is_cuda
        return torch.optim.AdamW(groups, betas=betas, eps=settings.eps, fused=True, capturable=capturable)
    assert isinstance(settings, Sgd)
    momentum, decay = settings.momentum, settings.weight_decay
    if settings.backbone_updates == "listed":
        return RepeatedSGD(groups, iteration, momentum=momentum, weight_decay=decay)
    return torch.optim.SGD(groups, momentum=momentum, weight_decay=decay, fused=True)


def remembered(settings: Optimizer, *, flat: bool) -> tuple[str, ...]:
    """What such an optimiser remembers of each parameter, by torch's names; a flat update keeps a momentum of zero."""
    if isinstance(settings, AdamW):
        return ("step", "exp_avg", "exp_avg_sq")
    return ("momentum_buffer",) if flat or (isinstance(settings, Sgd) and settings.momentum > 0) else ()


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """All that it moves, in the order of its groups."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def state_of(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    """What the optimiser remembers of a parameter, by torch's names; nothing of one that it does not move."""
    held = optimizer.state.get(parameter, {})
    return {name: value for name, value in held.items() if isinstance(value, Tensor)}


def _groups(student: Segmenter, settings: Optimizer, device: torch.device) -> Iterator[dict[str, Any]]:
    """torch's groups, in the network's order: one for parameters that share rate, decay and number of updates."""
    listed = isinstance(settings, Sgd) and settings.backbone_updates == "listed"
    own = student.parameter_groups()
    deepest = max(group.depth for group in own)
    merged: dict[tuple[str, float, bool], list[nn.Parameter]] = {}
    for group in own:
        rate = _highest(group, settings, deepest)
        merged.setdefault((group.name, rate, group.decays), []).extend(group.parameters)
    times = student.times_listed() if listed else {}
    for (name, rate, decays), parameters in merged.items():
        repeated = listed and name == "backbone"
        by_updates: dict[int, list[nn.Parameter]] = {}
        for parameter in parameters:
            by_updates.setdefault(times[parameter] if repeated else 1, []).append(parameter)
        for updates, those in sorted(by_updates.items()):
            one = rate / USUAL_UPDATES if repeated else rate
            yield {
                "params": those,
                "lr": torch.tensor(one, device=device),
                "weight_decay": settings.weight_decay if decays else 0.0,
                "base_rate": one,
                "updates": updates,
            }


def _highest(group: ParameterGroup, settings: Optimizer, deepest: int) -> float:
    """A group's rate of a whole iteration before the schedule."""
    rate = settings.lr_backbone if group.name == "backbone" else settings.lr_head
    return rate * group.lr_multiplier * settings.layer_decay ** (deepest - group.depth)
