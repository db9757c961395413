"""The cache folder: where packed copies and skip lists go, and how files get there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from fastuda.errors import FastudaError
from fastuda.paths import user_path
from fastuda.recipe import Data

CHANGE_HINT = "choose another folder with --set data.cache=DIR or the environment variable FASTUDA_CACHE"


def cache_folder(data: Data) -> Path:
    """The recipe's `data.cache`, else `$FASTUDA_CACHE`, else `~/.cache/fastuda`; not created here."""
    chosen = data.cache or os.environ.get("FASTUDA_CACHE") or Path("~/.cache/fastuda")
    return user_path(chosen)


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
            f"{path}: {what} needs about {_readable(bytes_needed)}, and {_readable(free)} are free; "
            f"make room, or {CHANGE_HINT}"
        )


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` so that `path` is either whole or as it was; FastudaError when the disk refuses.

    No fsync: after a power cut a file may be short, which is why packs record every file's size.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        raise write_failure(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Callable[[bytes], None]]:
    """A function that writes to a file bit by bit: once the block ends `path` is whole; if it raises, as it was.

    Raises FastudaError when the disk refuses.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
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
            file.close()
            os.replace(temporary, path)


@contextlib.contextmanager
def _refusals_named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise write_failure(path, error) from error


def append(path: Path, line: bytes) -> None:
    """Add a line to a journal; FastudaError when the disk refuses. A kill can leave a torn last line."""
    try:
        with path.open("ab") as file:
            file.write(line)
    except OSError as error:
        raise write_failure(path, error) from error


def write_failure(path: Path, error: OSError) -> FastudaError:
    """The error to raise when writing `path` failed: what happened, and how to use another folder."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FastudaError(
            f"{path}: no space left on the disk; make room and run again, or, for the cache, {CHANGE_HINT}"
        )
    return FastudaError(f"{path}: cannot be written ({error.strerror or error}); for the cache, {CHANGE_HINT}")


def _readable(num_bytes: int) -> str:
    size = float(num_bytes)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
