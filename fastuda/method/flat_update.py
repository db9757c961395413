"""The whole update of an iteration on flat tensors: gradients, optimiser, average and low-precision weights at once.

One tensor holds all weights of a kind, one each of what the optimiser remembers of them, one all averages; the
network's parameters are views of them. An iteration's end is then a few operations over long tensors, which a compiler
makes one kernel a kind of.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastuda.method.optimizer import parameters_of, state_of
from fastuda.model.segmenter import Segmenter

_ALIGNMENT = 64
"""Elements to whose multiples each tensor's part is padded: weights that begin at odd places make convolutions slow."""


@dataclass
class Segment:
    """Parameters with one learning rate and one precision, end to end in the order of their memory."""

    leaves: list[nn.Parameter]
    """What passes differentiate: the parameters, or their low-precision copies."""
    weight: Tensor
    memory: dict[str, Tensor]
    """What the optimiser remembers of each weight, by torch's names."""
    average: Tensor
    copies: Tensor | None
    """The weights in the passes' precision; None where passes read the weights themselves."""
    rate: Tensor
    step: Tensor | None = None
    """Updates done, float32 scalar, where the optimiser counts them: one for all parameters."""
    decays: bool = True
    """Whether weight decay holds for them."""
    updates: int = 1
    """How often an iteration moves each of them, see `RepeatedSGD`."""
    gradients: list[Tensor] = field(default_factory=list)
    """Of each backward pass since the last update, flat, in the precision that it had."""
    reached: list[bool] = field(default_factory=list)
    """Whether any of those passes reached the leaf."""
    was_reached: bool = False
    """Whether the last pass reached any."""

    def __post_init__(self) -> None:
        self._zeros = torch.zeros(max(map(_padded, self.leaves)), dtype=self.leaves[0].dtype, device=self.weight.device)

    def collect(self) -> None:
        """Take the leaves' gradients of one backward pass."""
        found = [leaf.grad for leaf in self.leaves]
        self.was_reached = not all(gradient is None for gradient in found)
        if not self.was_reached:
            return
        parts = []
        for leaf, gradient in zip(self.leaves, found, strict=True):
            own = [] if gradient is None else [_in_memory_order(gradient, leaf)]
            parts += [*own, self._zeros[: _padded(leaf) - sum(part.numel() for part in own)]]
        self.gradients.append(torch.cat([part for part in parts if part.numel()]))
        before = self.reached or [False] * len(found)
        self.reached = [was or gradient is not None for was, gradient in zip(before, found, strict=True)]
        for leaf in self.leaves:
            leaf.grad = None

    def wide(self) -> Tensor:
        """The last pass's, in the weights' precision from now on."""
        self.gradients[-1] = self.gradients[-1].to(self.weight.dtype)
        return self.gradients[-1]

    def summed(self) -> Tensor:
        """All passes' in one, in the weights' precision; it takes their place."""
        first, *others = (gradient.to(self.weight.dtype) for gradient in self.gradients)
        self.gradients = [reduce(torch.add, others, first)]
        return self.gradients[0]

    def clear(self) -> None:
        """Forget collected gradients."""
        self.gradients, self.reached = [], []
        for leaf in self.leaves:
            leaf.grad = None

    def parts(self) -> Iterator[Part]:
        """What an update moves. A parameter that no loss reached stays as it is, as torch's SGD leaves it."""
        start = 0
        for reached, group in groupby(zip(self.reached, self.leaves, strict=False), key=lambda pair: pair[0]):
            stop = start + sum(_padded(leaf) for _, leaf in group)
            run = slice(start, stop)
            if reached:
                copies = None if self.copies is None else self.copies[run]
                gradients = tuple(gradient[run] for gradient in self.gradients)
                memory = {name: flat[run] for name, flat in self.memory.items()}
                yield Part(
                    self.weight[run], memory, self.average[run], copies, self.rate, self.step, self.decays,
                    self.updates, gradients,
                )  # fmt: skip
            start = stop


class Part(NamedTuple):
    """Neighbours of a segment that are moved together, flat."""

    weight: Tensor
    memory: dict[str, Tensor]
    average: Tensor
    copies: Tensor | None
    rate: Tensor
    step: Tensor | None
    decays: bool
    updates: int
    gradients: tuple[Tensor, ...]


class FlatUpdate:
    """The update of a student, its average and its optimiser's state, whose tensors it has laid out anew.

    `worker` is what goes through the network: with `precision` a twin of the student whose `cast_modules` have copies
    of their weights in that type, written by each update, so that no pass casts them; it shares all else with the
    student. Without `precision` it is the student. Moving a model or replacing
    a parameter breaks the layout; loading a state in place does not, but needs `refresh`.
    """

    def __init__(
        self, student: Segmenter, average: Segmenter, optimizer: torch.optim.Optimizer, precision: torch.dtype | None
    ) -> None:
        self.worker = student if precision is None else _twin(student, precision, parameters_of(optimizer))
        leaves, averaged = dict(self.worker.named_parameters()), dict(average.named_parameters())
        names = {parameter: name for name, parameter in student.named_parameters()}
        self.segments: list[Segment] = []
        for group in optimizer.param_groups:
            by_precision: dict[torch.dtype, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                by_precision.setdefault(leaves[names[parameter]].dtype, []).append(parameter)
            for parameters in by_precision.values():
                working = [leaves[names[parameter]] for parameter in parameters]
                memory, step = _memory(optimizer, parameters)
                self.segments.append(
                    Segment(
                        working,
                        weight=_flattened(parameters),
                        memory=memory,
                        average=_flattened([averaged[names[one]] for one in parameters]),
                        copies=None if working[0] is parameters[0] else _flattened(working),
                        rate=group["lr"],
                        step=step,
                        decays=group["weight_decay"] > 0,
                        updates=group["updates"],
                    )
                )

    def collect(self) -> None:
        """Take the gradients that a backward pass left on the leaves."""
        for segment in self.segments:
            segment.collect()

    def clear(self) -> None:
        """Forget all gradients."""
        for segment in self.segments:
            segment.clear()

    def latest(self) -> list[Tensor]:
        """The gradients of the last backward pass, each segment's flat, in the weights' own precision."""
        return [segment.wide() for segment in self.segments if segment.was_reached]

    def sums(self) -> list[Tensor]:
        """Those of all passes, each segment's in one; the update then reads what becomes of these."""
        return [segment.summed() for segment in self.segments if segment.gradients]

    def put_together(self) -> None:
        """Nothing is to be done: the update adds what the passes left."""

    def parts(self) -> list[Part]:
        """What the collected gradients move: an argument of `update_rules.move`."""
        return [part for segment in self.segments for part in segment.parts()]

    @torch.no_grad()
    def refresh(self) -> None:
        """Write the low-precision copies anew from the weights."""
        for segment in self.segments:
            if segment.copies is not None:
                segment.copies.copy_(segment.weight)

    def tensors(self) -> list[Tensor]:
        """What an update changes beyond the models' and the optimiser's own tensors: the low-precision copies."""
        return [segment.copies for segment in self.segments if segment.copies is not None]


def _memory(
    optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]
) -> tuple[dict[str, Tensor], Tensor | None]:
    """What an optimiser remembers of parameters, each kind flat; and the one tensor that counts their updates."""
    known = [state_of(optimizer, parameter) for parameter in parameters]
    memory = {name: _flattened([own[name] for own in known]) for name in known[0] if name != "step"}
    step = known[0].get("step")
    if step is not None:
        for parameter in parameters:
            optimizer.state[parameter]["step"] = step
    return memory, step


def _twin(student: Segmenter, precision: torch.dtype, moved: Sequence[nn.Parameter]) -> Segmenter:
    """A network that shares all with the student but the weights of its `cast_modules`, which it has in `precision`.

    A weight that no update moves, or that belongs to several modules, is shared as it is.
    """
    places = Counter(id(one) for module in student.modules() for one in module._parameters.values() if one is not None)
    updated = {id(parameter) for parameter in moved}
    cast = [
        module for module in student.cast_modules() if id(module.weight) in updated and places[id(module.weight)] == 1
    ]
    weights = {id(module.weight) for module in cast}
    kept = {id(parameter) for parameter in student.parameters()} - weights
    shared: list[object] = [one for one in (*student.parameters(), *student.buffers()) if id(one) not in weights]
    own = {id(module) for module in cast}
    shared += [module for module in student.modules() if not any(id(inner) in own for inner in module.modules())]
    twin = copy.deepcopy(student, {id(one): one for one in shared})
    for module in twin.cast_modules():
        if id(module.weight) not in kept:
            module.weight = nn.Parameter(module.weight.detach().to(precision), module.weight.requires_grad)
    return twin


def _flattened(tensors: Sequence[Tensor]) -> Tensor:
    """One flat tensor of their values, in memory order and padded with zeros; each becomes a view of its part."""
    flat = tensors[0].new_zeros(sum(map(_padded, tensors)))
    start = 0
    for tensor in tensors:
        flat[start : start + tensor.numel()].copy_(_in_memory_order(tensor.detach(), tensor))
        tensor.data = flat.as_strided(tensor.shape, tensor.stride(), start)
        start += _padded(tensor)
    return flat


def _padded(tensor: Tensor) -> int:
    return tensor.numel() + -tensor.numel() % _ALIGNMENT


def _in_memory_order(values: Tensor, like: Tensor) -> Tensor:
    """`values` flat, in the order in which `like`, a dense tensor, lies in memory; a view where they lie so too."""
    if any(a != b for a, b, n in zip(values.stride(), like.stride(), like.shape, strict=True) if n > 1):
        values = torch.empty_like(like, dtype=values.dtype).copy_(values)
    return values.as_strided((values.numel(),), (1,))
