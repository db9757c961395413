"""An end for runs that hang: all stacks are printed and the process leaves, to go on from its last checkpoint."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

EXIT_STUCK = 76
"""Exit code of a run that made no progress; `--resume` goes on from its last checkpoint."""
_GRACE = 30.0


class Watchdog:
    """While entered, ends the process when `alive` was not called for `minutes`; 0 never does.

    A thread watches. Where the interpreter itself hangs, so that no thread of Python's can, faulthandler's own does:
    `minutes` and half a minute later, with exit code 1.
    """

    def __init__(self, minutes: float, advice: str) -> None:
        self._seconds = 60 * minutes
        self._advice = advice
        self._last = time.monotonic()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Watchdog:
        self.alive()
        if self._seconds:
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()

    def alive(self) -> None:
        """Say that there was progress."""
        self._last = time.monotonic()

    def watching(self, progress: Callable[[int, int], None]) -> Callable[[int, int], None]:
        """`progress`, whose calls are signs of life as long as more is done from one to the next."""
        last = -1

        def watched(done: int, total: int) -> None:
            nonlocal last
            if done != last:
                last = done
                self.alive()
            progress(done, total)

        return watched

    def _watch(self) -> None:
        pause = min(5.0, self._seconds / 4)
        while True:
            left = self._last + self._seconds - time.monotonic()
            if left <= 0:
                break
            if sys.__stderr__ is not None:
                faulthandler.dump_traceback_later(left + _GRACE, exit=True, file=sys.__stderr__)
            if self._over.wait(min(pause, left)):
                return
        self._end()

    def _end(self) -> None:
        if sys.__stderr__ is not None:
            with contextlib.suppress(OSError):  # a full disk, or nobody who listens
                self._tell(sys.__stderr__)
        os._exit(EXIT_STUCK)

    def _tell(self, stream: TextIO) -> None:
        minutes = f"{self._seconds / 60:g} minutes"
        stream.write(f"\nerror: no progress for {minutes}, so the run ends here; what every thread did:\n")
        stream.flush()
        faulthandler.dump_traceback(file=stream, all_threads=True)
        stream.write(f"error: no progress for {minutes}; {self._advice}\n")
        stream.flush()
