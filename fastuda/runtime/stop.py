"""A polite stop: on a signal or after a time, at the next point where everything can be saved."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from fastuda.errors import FastudaError, UsageError

EXIT_STOPPED = 75
"""Exit code of a run that was stopped on request, all saved: sysexits' EX_TEMPFAIL, by which schedulers requeue."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Ctrl-C, the end that schedulers and shells ask for, and the warning that Slurm's `--signal=USR1@120` sends."""

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):(\d{1,2})(?::(\d{1,2}))?")


class StoppedError(FastudaError):
    """A run left early on request, its state saved; `--resume` continues it."""


class StopAskedError(FastudaError):
    """Raised out of long work that can be begun again, because a stop was asked for."""


class StopRequest:
    """While entered, signals and a deadline set `received` instead of ending the process.

    A second Ctrl-C ends it at once, with exit code 130, where `ends_process` says that it is a command's own; in a
    caller's process it raises KeyboardInterrupt. `deadline` is a time of `time.monotonic`.
    """

    def __init__(self, deadline: float | None = None, *, ends_process: bool = False) -> None:
        self._deadline = deadline
        self.ends_process = ends_process
        self._signal: str | None = None
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def received(self) -> str | None:
        """What asked for the stop; None while nothing did."""
        if self._signal is None and self._deadline is not None and time.monotonic() >= self._deadline:
            self._signal = "--max-time is over"
        return self._signal

    def __enter__(self) -> StopRequest:
        try:
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._note)
        except ValueError:  # not the main thread: whoever runs this handles signals
            self._previous.clear()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def look(self) -> None:
        """To be called now and then in work that can be begun again; StopAskedError once a stop was asked for."""
        if self.received:
            raise StopAskedError(f"{self.received}: stopped")

    def watching(self, progress: Callable[[int, int], None]) -> Callable[[int, int], None]:
        """`progress`, which raises StopAskedError once a stop was asked for."""

        def watched(done: int, total: int) -> None:
            progress(done, total)
            if done < total:
                self.look()

        return watched

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self._signal is not None and number == signal.SIGINT:
            if not self.ends_process:
                raise KeyboardInterrupt
            with contextlib.suppress(OSError):  # a terminal that is gone
                if os.isatty(1):
                    os.write(1, b"\x1b[?25h\n")  # progress bars hide the cursor
            os._exit(128 + number)
        self._signal = self._signal or signal.Signals(number).name


def duration(text: str) -> float:
    """Seconds of `8h`, `90m`, `1d12h`, `45s`, or of Slurm's `HH:MM:SS` and `D-HH:MM`; UsageError for anything else."""
    text = text.strip()
    if ((match := _DURATION.fullmatch(text)) and text) or (match := _CLOCK.fullmatch(text)):
        days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    else:
        raise UsageError(f"--max-time {text}: a time such as 8h, 90m, 1d12h or 08:00:00")
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if not 0 < total < 1e9:
        raise UsageError(f"--max-time {text}: more than nothing, such as 8h or 90m")
    return total
