"""A stop that any rank was asked for, heard by all of them at the same iteration."""

from __future__ import annotations

from fastuda.distributed.ranks import Asked, Ranks
from fastuda.runtime.stop import StopRequest


class SharedStop:
    """Why to stop, as all ranks know it.

    A signal may reach one rank alone, or each in another iteration. Ranks that stopped at different ones would wait for
    one another for ever.
    """

    def __init__(self, ranks: Ranks, stop: StopRequest) -> None:
        self._ranks = ranks
        self._stop = stop
        self._asked: Asked | None = None

    def next(self) -> str | None:
        """Called once an iteration: why to stop now, or None.

        Ranks say what they were asked for without waiting for one another, and act on it an iteration later.
        """
        if self._ranks.alone:
            return self._stop.received
        before, self._asked = self._asked, self._ranks.asks(self._stop.received is not None)
        return self.now() if before is not None and before.answer() else None

    def now(self) -> str | None:
        """Why to stop, with what every rank was asked for by this moment; waits for all of them."""
        return self._ranks.agreed(self._stop.received)
