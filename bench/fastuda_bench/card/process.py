"""A command in a session of its own, ended with all its children when its time is over."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_GRACE_SECONDS = 5.0
"""Between SIGTERM, after which a process may still write what it has, and SIGKILL."""
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    rc: int
    seconds: float
    in_time: bool


def run(command: Sequence[str], log: Path, limit: float, *, cwd: Path, environment: Mapping[str, str]) -> Ended:
    """Run `command` for at most `limit` seconds, what it says in `log`; nothing of its process group outlives it.

    An interrupt ends the command too, before it is raised.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd=cwd,
            env=environment,
            start_new_session=True,
        )
        try:
            in_time = _ends_within(process, limit)
            if not in_time:
                _signal(process, signal.SIGTERM)
                _ends_within(process, _GRACE_SECONDS)
        except BaseException:
            _signal(process, signal.SIGTERM)
            _ends_within(process, _GRACE_SECONDS)
            raise
        finally:
            # Children that the command left behind go with it; its own number is not free before `wait`.
            _signal(process, signal.SIGKILL)
            process.wait()
    return Ended(process.returncode, time.monotonic() - began, in_time)


def _ends_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether the process ends in time; it is not reaped, so that its group keeps its number."""
    until = time.monotonic() + seconds
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() > until:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
