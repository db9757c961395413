"""Runs that hang are told: with all stacks, and in a command with its end, to go on from its last checkpoint."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import TextIO

log = logging.getLogger(__name__)

EXIT_STUCK = 76
"""Exit code of a run that made no progress; `--resume` goes on from its last checkpoint."""
_GRACE = 30.0


class Watchdog:
    """While entered, tells what every thread does when `alive` was not called for `minutes`; 0 never does.

    A thread watches. With `ends_process` it then ends the process. Where the interpreter itself hangs, so that no
    thread of Python's can, faulthandler's own does: `minutes` and half a minute later, with exit code 1. Without, it
    logs a warning, once until there is progress again: the process is a caller's, and so is faulthandler.
    """

    def __init__(self, minutes: float, advice: str, *, ends_process: bool = False) -> None:
        self._seconds = 60 * minutes
        self._advice = advice
        self._ends_process = ends_process
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
            if self._ends_process:
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
        pause, told = min(5.0, self._seconds / 4), 0.0
        while True:
            last = self._last
            left = last + self._seconds - time.monotonic()
            if left <= 0 and self._ends_process:
                self._end()
            if left <= 0 and told != last:
                self._warn()
                told = last
            if self._ends_process and sys.__stderr__ is not None:
                faulthandler.dump_traceback_later(left + _GRACE, exit=True, file=sys.__stderr__)
            if self._over.wait(min(pause, left) if left > 0 else pause):
                return

    def _warn(self) -> None:
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        stacks = [
            f"{names.get(number, number)}:\n{''.join(traceback.format_stack(frame))}"
            for number, frame in sys._current_frames().items()
            if number != threading.get_ident()
        ]
        log.warning(
            "no progress for %g minutes; interrupt it if it hangs, and %s; what every thread does:\n%s",
            self._seconds / 60, self._advice, "".join(stacks),
        )  # fmt: skip

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
