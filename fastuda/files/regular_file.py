"""Files that users name, read so that none makes a command wait or fills the memory: regular ones, of bounded size."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class IrregularError(OSError):
    """What is found is no regular file and no folder, which is an IsADirectoryError."""


def open_regular(path: Path) -> BinaryIO:
    """A regular file, named directly or through links, to be read.

    Raises OSError, whose `strerror` says why, for whatever cannot be read, for folders (IsADirectoryError), and for
    pipes, sockets and devices (IrregularError).
    """
    try:
        _require_regular(path, os.stat(path))
        # What is regular now may be a pipe a moment later, and opening that would wait for its other end.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:
        raise IrregularError(errno.EINVAL, "a path with a NUL character", os.fspath(path)) from error
    file = open(handle, "rb")  # noqa: SIM115, the caller's to close
    try:
        _require_regular(path, os.fstat(handle))
    except OSError:
        file.close()
        raise
    return file


def read_regular(path: Path, limit: int | None = None) -> bytes:
    """The content of a regular file; raises OSError as `open_regular` does, and for more than `limit` bytes (EFBIG)."""
    with open_regular(path) as file:
        if limit is not None and os.fstat(file.fileno()).st_size > limit:
            raise _too_long(path, limit)
        # One more byte tells a file that grows, or whose size the system does not say.
        data = file.read(-1 if limit is None else limit + 1)
    if limit is not None and len(data) > limit:
        raise _too_long(path, limit)
    return data


def _require_regular(path: Path, found: os.stat_result) -> None:
    if stat.S_ISREG(found.st_mode):
        return
    kind = next((name for holds, name in _KINDS if holds(found.st_mode)), "no regular file")
    said = f"it is {kind}, not a file", os.fspath(path)
    raise OSError(errno.EISDIR, *said) if stat.S_ISDIR(found.st_mode) else IrregularError(errno.EINVAL, *said)


def _too_long(path: Path, limit: int) -> OSError:
    size = f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit >> 10} KiB"
    return OSError(errno.EFBIG, f"it is larger than {size}", os.fspath(path))
