"""Losses read off the device while it goes on: means over windows of iterations, and how fast these went."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastuda.method.losses import Losses
from fastuda.method.state import TrainingState


@dataclass(frozen=True)
class Reading:
    """What one window of iterations was like."""

    iteration: int
    """Iterations done at its end."""
    losses: dict[str, float]
    """Mean of each term over the window."""
    lr: float
    """The backbone's learning rate in its last iteration."""
    first_nonfinite: int
    """The first iteration of the stage whose loss was not finite, −1 while there is none."""
    seconds: float
    """Device time of the window."""
    iterations_per_second: float


class Readback:
    """Sums losses on the device and copies their means to the host without waiting for the copy.

    `close` ends a window; its reading comes out of `ready` once the device has got there, or out of
    `all`, which waits: the only place of the training loop that does.
    """

    def __init__(self, state: TrainingState) -> None:
        self._state = state
        self._on_gpu = state.iteration.is_cuda
        self._under_way: deque[tuple[list[str], int, int, Tensor, Any, Any]] = deque()
        self.restart()

    def restart(self) -> None:
        """Begin a window now; what happened since the last `close` does not count."""
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self._began = self._mark()

    def add(self, losses: Losses) -> None:
        """Count one iteration's scalar losses."""
        for name, loss in losses.items():
            self._sums[name] = self._sums[name] + loss if name in self._sums else loss.clone()
        self._count += 1

    def close(self, iteration: int) -> None:
        """End the window after `iteration` iterations of the stage and begin the next one."""
        rate, nonfinite = self._state.optimizer.param_groups[0]["lr"], self._state.first_nonfinite
        means = [total / self._count for total in self._sums.values()]
        values = torch.stack([value.double() for value in (*means, rate, nonfinite)])
        if self._on_gpu:
            host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            host.copy_(values, non_blocking=True)
            values = host
        self._under_way.append((list(self._sums), iteration, self._count, values, self._began, self._mark()))
        self.restart()

    def ready(self) -> Iterator[Reading]:
        """Readings of closed windows that have arrived, in order."""
        while self._under_way and (not self._on_gpu or self._under_way[0][-1].query()):
            yield _reading(*self._under_way.popleft())

    def all(self) -> Iterator[Reading]:
        """Readings of all closed windows, in order; waits for the device to get there."""
        while self._under_way:
            if self._on_gpu:
                self._under_way[0][-1].synchronize()
            yield _reading(*self._under_way.popleft())

    def _mark(self) -> Any:
        """This moment in the device's own time."""
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


def _reading(names: list[str], iteration: int, count: int, values: Tensor, began: Any, ended: Any) -> Reading:
    *means, lr, nonfinite = values.tolist()
    seconds = ended - began if isinstance(ended, float) else began.elapsed_time(ended) / 1000
    losses = dict(zip(names, means, strict=True))
    return Reading(iteration, losses, lr, int(nonfinite), seconds, count / seconds)
