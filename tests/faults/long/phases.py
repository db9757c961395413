"""What a run is doing at the moment, told by the run itself in shared memory."""

from __future__ import annotations

import functools
import mmap
import struct
import time
from collections.abc import Callable
from typing import Any

import fastuda.data.datasets
import fastuda.training.run
import fastuda.training.stage
from fastuda.runs.checkpoint.store import CheckpointStore
from fastuda.training.loop import Loop

PHASES = ("drawing", "packing", "warm-up", "checkpoint", "evaluation", "adaptation", "the end")
"""In the order of a run; its end is pictures and results."""
LASTS = dict(zip(PHASES, (4.0, 0.4, 0.3, 0.02, 0.3, 0.5, 0.1), strict=True))
"""About how many seconds each lasts, of a tiny run."""
_SECONDS = struct.Struct("d")


class Phases:
    """Marks that the run's process sets, and that outlive it."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 2)
        self._longest = mmap.mmap(-1, _SECONDS.size)

    def now(self) -> str:
        """The phase; "checkpoint" while one is being written, whatever goes on beside it; "" before the first."""
        if self._shared[1]:
            return "checkpoint"
        return ("", *PHASES)[self._shared[0]]

    def longest(self) -> float:
        """Seconds of the longest iteration so far."""
        return float(_SECONDS.unpack(self._longest[:])[0])

    def install(self) -> None:
        """To be called in the run's process: from now on it says what it does."""

        def marked(phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(function)
            def call(*arguments: Any, **options: Any) -> Any:
                self._shared[0] = 1 + PHASES.index(phase)
                return function(*arguments, **options)

            return call

        written = CheckpointStore.write

        def write(*arguments: Any) -> Any:
            self._shared[1] = 1
            try:
                return written(*arguments)
            finally:
                self._shared[1] = 0

        iterate = Loop.__call__

        def iteration(loop: Loop) -> Any:
            phase = "adaptation" if len(loop._loaders) > 1 else "warm-up"
            self._shared[0] = 1 + PHASES.index(phase)
            began = time.monotonic()
            try:
                return iterate(loop)
            finally:
                self._longest[:] = _SECONDS.pack(max(self.longest(), time.monotonic() - began))

        changes: list[tuple[Any, str, Callable[..., Any]]] = [
            (fastuda.data.datasets, "draw_demo", marked("drawing", fastuda.data.datasets.draw_demo)),
            (fastuda.data.datasets, "prepare", marked("packing", fastuda.data.datasets.prepare)),
            (fastuda.training.stage, "scored", marked("evaluation", fastuda.training.stage.scored)),
            (fastuda.training.run, "comparison_grid", marked("the end", fastuda.training.run.comparison_grid)),
            (CheckpointStore, "write", write),
            (Loop, "__call__", iteration),
        ]
        for place, name, function in changes:
            setattr(place, name, function)
