"""One process a folder: who holds it, for how long others wait, and what they are told meanwhile."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from fastuda.errors import FastudaError
from fastuda.files.disk import write_failure

LOCK, HOLDER = ".lock", ".holder.json"
"""Files in a folder that is, or was, held; the first may stay, the second says by whom."""
Look = Callable[[], None]
"""To be called now and then while something is waited for: a sign of life, and, by what it raises, the wait's end."""
_LOOK_SECONDS = 0.25
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
log = logging.getLogger(__name__)


class HeldError(FastudaError):
    """Another process holds the folder."""


@contextmanager
def held(
    folder: Path,
    what: str,
    *,
    wait: bool,
    patience: float = math.inf,
    look: Look | None = None,
    reading: bool = False,
) -> Iterator[None]:
    """Hold an existing `folder` against other processes while entered; the lock ends with the process, however it ends.

    With `wait` it is waited for, `patience` seconds at most, after a line that says for whom; `look` is called several
    times a second meanwhile. Without, or when patience is over, HeldError names the holder: what it does, its process,
    host, beginning and command. `reading` goes on without a lock where the folder cannot be written to. FastudaError
    for a folder where no lock can be made.

    The lock is filelock's; by hand is what it has not: the holder's name for those that wait, and looks in between.
    """
    lock = FileLock(folder / LOCK)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not wait:
                raise _refusal(folder) from None
            log.info("%s: waiting, since %s", folder, _holder(folder))
            _wait(lock, folder, time.monotonic() + patience, look)
    except OSError as error:
        if reading and error.errno in _READ_ONLY:
            yield
            return
        raise write_failure(folder / LOCK, error) from error
    try:
        _introduce(folder, what)
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / HOLDER).unlink()
        lock.release()


def _wait(lock: FileLock, folder: Path, end: float, look: Look | None) -> None:
    """Take the lock as soon as it is free; HeldError when that is not before `end`, of `time.monotonic`."""
    while True:
        if look is not None:
            look()
        try:
            lock.acquire(timeout=_LOOK_SECONDS)
            return
        except Timeout:
            if time.monotonic() >= end:
                raise _refusal(folder) from None


def _refusal(folder: Path) -> HeldError:
    return HeldError(f"{folder}: {_holder(folder)}; wait for it, or stop it first")


def _introduce(folder: Path, what: str) -> None:
    """Say who holds the folder. A disk without room for it is no reason to stop."""
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    about = {
        "what": what,
        "pid": os.getpid(),
        "host": platform.node(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": command.encode("utf-8", "backslashreplace").decode(),
    }
    with contextlib.suppress(OSError):
        (folder / HOLDER).write_text(json.dumps(about) + "\n")


def _holder(folder: Path) -> str:
    try:
        about = json.loads((folder / HOLDER).read_text())
        who = f"process {about['pid']} on {about['host']}, since {about['since']}: {about['command']}"
        return f"another process is {about['what']} here ({who})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process works in this folder"
