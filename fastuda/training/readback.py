"""Losses read off the device while it goes on: means over windows of iterations, and how fast these went."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastuda.method.state import TrainingState
from fastuda.method.term import Losses


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
    waited: float
    """Share of the window, 0 to 1, in which the host waited for data."""


class Readback:
    """Sums losses on the device and copies their means to the host without waiting for the copy.

    `close` ends a window; its reading comes out of `ready` once the device has got there, or out of
    `all`, which waits: the only place of the training loop that does. A stage's first iteration compiles and
    captures, so its time counts for nothing.
    """

    def __init__(self, state: TrainingState) -> None:
        self._state = state
        self._on_gpu = state.iteration.is_cuda
        self._under_way: deque[_Window] = deque()
        self._first = True
        self.restart()

    def restart(self) -> None:
        """Begin a window now; what happened since the last `close` does not count."""
        self._sums: dict[str, Tensor] = {}
        self._count = self._num_timed = 0
        self._began = self._mark()
        self._began_here = time.perf_counter()

    def add(self, losses: Losses) -> None:
        """Count one iteration's scalar losses."""
        for name, loss in losses.items():
            self._sums[name] = self._sums[name] + loss if name in self._sums else loss.clone()
        self._count += 1
        if self._first:
            self._first, self._before_first = False, self._began
            self._began = self._mark()
            self._began_here = time.perf_counter()
        else:
            self._num_timed += 1

    def open_window(self) -> tuple[int, dict[str, Tensor]]:
        """Iterations since the last `close`, and their losses summed: what a checkpoint between two rows keeps."""
        return self._count, self._sums

    def open_seconds(self) -> float:
        """The host's time since the open window began; what a checkpoint adds to the seconds of the closed ones."""
        return time.perf_counter() - self._began_here

    def reopen(self, count: int, sums: Mapping[str, Tensor]) -> None:
        """Go on with the window that was open in a checkpoint; its iterations count for the means, not for the pace."""
        self._count, self._sums = count, {name: value.clone() for name, value in sums.items()}

    def close(self, iteration: int, waited: float = 0.0) -> None:
        """End the window after `iteration` iterations of the stage, `waited` seconds for data; begin the next one."""
        rate, nonfinite = self._state.optimizer.param_groups[0]["lr"], self._state.first_nonfinite
        means = [total / self._count for total in self._sums.values()]
        values = torch.stack([value.double() for value in (*means, rate, nonfinite)])
        if self._on_gpu:
            host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            host.copy_(values, non_blocking=True)
            values = host
        # Of a window that holds the first iteration alone there is no other time than that one's.
        began, num_timed = (self._began, self._num_timed) if self._num_timed else (self._before_first, 1)
        window = _Window(list(self._sums), iteration, num_timed, waited, values, began, self._mark())
        self._under_way.append(window)
        self.restart()

    def ready(self) -> Iterator[Reading]:
        """Readings of closed windows that have arrived, in order."""
        while self._under_way and (not self._on_gpu or self._under_way[0].ended.query()):
            yield self._under_way.popleft().read()

    def all(self) -> Iterator[Reading]:
        """Readings of all closed windows, in order; waits for the device to get there."""
        while self._under_way:
            if self._on_gpu:
                self._under_way[0].ended.synchronize()
            yield self._under_way.popleft().read()

    def _mark(self) -> Any:
        """This moment in the device's own time."""
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


@dataclass(frozen=True)
class _Window:
    """A closed window whose numbers are on their way to the host."""

    names: list[str]
    iteration: int
    num_timed: int
    waited: float
    values: Tensor
    began: Any
    ended: Any

    def read(self) -> Reading:
        *means, lr, nonfinite = self.values.tolist()
        on_cpu = isinstance(self.ended, float)
        seconds = self.ended - self.began if on_cpu else self.began.elapsed_time(self.ended) / 1000
        losses, rate = dict(zip(self.names, means, strict=True)), self.num_timed / seconds
        return Reading(self.iteration, losses, lr, int(nonfinite), seconds, rate, min(1.0, self.waited / seconds))
