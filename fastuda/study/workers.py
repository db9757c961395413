"""The places of a study's processes, each with a card of its own; none is left behind."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence

import torch

from fastuda.errors import UsageError
from fastuda.runtime.device import choose_device
from fastuda.study.cell import Answer, Request
from fastuda.study.cell_process import CellProcess

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.1
Card = str | None
"""A GPU as CUDA_VISIBLE_DEVICES names it; None: the CPU."""


def cards(workers: int, device: str | None) -> list[Card]:
    """A card for each worker, of the GPUs that this process may see; UsageError when there are not so many.

    The CPU serves any number. No GPU is taken into use for the answer: their memory is the runs'.
    """
    if device not in (None, "cuda") or not torch.cuda.is_available():
        choose_device(device)  # FastudaError for what there is not
        return [None] * workers
    count = torch.cuda.device_count()
    if workers > count:
        raise UsageError(
            f"--workers {workers}: each needs a GPU of its own, and torch finds {count} here; at most --workers {count}"
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(number) for number in range(count)] if visible is None else visible.split(",")
    return [name.strip() for name in names[:workers]]


class Workers:
    """At most as many processes at a time as there are cards.

    Left by an exception, it lets them save what they have and waits for it; a KeyboardInterrupt, even while it waits,
    kills them.
    """

    def __init__(self, cards: Sequence[Card]) -> None:
        self._free = dict(enumerate(cards))
        self._running: dict[int, CellProcess] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None or issubclass(kind, Exception):
                if self.stop():
                    log.info("the study ends as soon as all runs have saved what there is")
                while self._running:
                    self.ended()
        finally:
            for process in self._running.values():
                process.kill()
            for process in self._running.values():
                process.end()

    @property
    def are_full(self) -> bool:
        """Whether every card is taken."""
        return not self._free

    @property
    def running(self) -> list[CellProcess]:
        """The processes that there are."""
        return list(self._running.values())

    def begin(self, request: Request) -> Card:
        """Run a cell on the first free card, which is returned; FastudaError when no process can be had."""
        place = min(self._free)
        self._running[place] = CellProcess.started(request, self._free[place])
        return self._free.pop(place)

    def stop(self) -> int:
        """Let every process save what it has and end; how many were not asked to before."""
        return sum(process.stop() for process in self._running.values())

    def ended(self) -> list[tuple[CellProcess, Answer]]:
        """The processes that ended since the last call, with what became of their cells; after a pause if none did."""
        found = []
        for place, process in list(self._running.items()):
            answer = process.answer()
            if answer is not None:
                process.end()
                del self._running[place]
                self._free[place] = process.card
                found.append((process, answer))
        if not found:
            time.sleep(_LOOK_SECONDS)
        return found
