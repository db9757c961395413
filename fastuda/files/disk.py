"""Writing to disks that fill up, fail, or lose power: a file is whole and on the disk, or as it was."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from fastuda.errors import FastudaError
from fastuda.printable import on_one_line

PART = ".part"
"""How the names of files that are being written end; they begin with a dot."""
CACHE_HINT = "choose another folder with --set data.cache=DIR or the environment variable FASTUDA_CACHE"


def make_folder(path: Path) -> Path:
    """Create `path` and its parents; FastudaError naming it and how to choose another if that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_failure(path, error) from error
    return path


def require_free(path: Path, bytes_needed: int, what: str) -> None:
    """FastudaError unless the disk that `path` is (to be) on has `bytes_needed` free for `what`."""
    existing = path
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < bytes_needed:
        raise FastudaError(
            f"{path}: {what} needs about {readable(bytes_needed)}, and {readable(free)} are free; "
            f"make room, or {CACHE_HINT}"
        )


def write_atomic(path: Path, content: bytes | Iterable[bytes], *, durable: bool = False) -> None:
    """Write `content` so that `path` is either whole or as it was; FastudaError when the disk refuses.

    `durable` also holds against a power cut: the content is on the disk before the name is, and the name before this
    returns. Without it a file may be short after a power cut, which is why packs record sizes and checksums.
    """
    with whole_file(path, durable=durable) as write, _refusals_named(path):
        for chunk in [content] if isinstance(content, bytes) else content:
            write(chunk)


def write_json(path: Path, content: Any, *, indent: int, durable: bool = False) -> None:
    """Write `content` as JSON for people too, by `write_atomic`: letters of all languages stay as they are.

    Names of files that are no UTF-8 become JSON's own escapes, from which they can be had again.
    """
    text = json.dumps(content, indent=indent, ensure_ascii=False)
    text = re.sub(r"[\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", text)
    write_atomic(path, text.encode() + b"\n", durable=durable)


@contextlib.contextmanager
def whole_file(path: Path, *, durable: bool = False) -> Iterator[Callable[[bytes], None]]:
    """A function that writes to a file bit by bit: once the block ends `path` is whole; if it raises, as it was.

    `durable` as in `write_atomic`. Raises FastudaError when the disk refuses.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}{PART}")
    with contextlib.ExitStack() as cleaning:

        def remove() -> None:
            with contextlib.suppress(OSError):
                temporary.unlink()

        def write(content: bytes) -> None:
            rest = memoryview(content)
            with _refusals_named(path):
                while rest:
                    rest = rest[file.write(rest) :]

        cleaning.callback(remove)
        with _refusals_named(path):
            # Unbuffered: a buffer that could not be written out would fail once more when the file is closed.
            file = cleaning.enter_context(temporary.open("wb", buffering=0))
        yield write
        with _refusals_named(path):
            if durable:
                os.fsync(file.fileno())
            file.close()
            os.replace(temporary, path)
            if durable:
                sync_folder(path.parent)


@contextlib.contextmanager
def _refusals_named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise write_failure(path, error) from error


def sync_folder(path: Path) -> None:
    """Make the names in a folder as durable as the files' contents; raises OSError."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def sync_journal(path: Path) -> None:
    """Make the lines of a journal durable, if there is one, and its name; FastudaError when the disk refuses."""
    try:
        _sync(path, os.O_RDONLY | os.O_NONBLOCK)
        sync_folder(path.parent)
    except FileNotFoundError:
        return
    except OSError as error:
        raise write_failure(path, error) from error


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems have no such thing
            raise
    finally:
        os.close(handle)


def append(path: Path, line: bytes) -> None:
    """Add a line to a journal; FastudaError when the disk refuses. A kill can leave a torn last line."""
    try:
        with path.open("ab") as file:
            file.write(line)
    except OSError as error:
        raise write_failure(path, error) from error


def remove(path: Path) -> None:
    """Delete a file that may be gone already; FastudaError when the disk refuses."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise write_failure(path, error) from error


def sweep(folder: Path) -> int:
    """Delete what killed writers left in a folder that nobody else writes to now; how many files that were."""
    orphans = list(folder.glob(f".*{PART}"))
    for orphan in orphans:
        with contextlib.suppress(OSError):
            orphan.unlink()
    return len(orphans)


def write_failure(path: Path, error: OSError) -> FastudaError:
    """The error to raise when writing `path` failed: what happened, and how to use another folder."""
    name = on_one_line(path)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FastudaError(
            f"{name}: no space left on the disk; make room and run again, or, for the cache, {CACHE_HINT}"
        )
    return FastudaError(f"{name}: cannot be written ({error.strerror or error}); for the cache, {CACHE_HINT}")


def readable(num_bytes: float) -> str:
    """A size for people, in binary units."""
    for unit in ("B", "KiB", "MiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} GiB"
