"""Paths as users write them, in options, recipe fields and environment variables: one way to read them all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from fastuda.errors import FastudaError, UsageError

_LONGEST_LINK = 4096


def user_path(text: str | os.PathLike[str]) -> Path:
    """The path with `~` and `~user` replaced; relative ones stay relative to the folder one works in.

    Raises UsageError for the home of a user that this machine does not know.
    """
    path = Path(text)
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UsageError(f"{path}: this machine knows no such user's home folder; write the path in full") from error


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below `folder`, through linked folders too, sorted within each.

    A link back up ends there, and what begins with a dot is left out: thumbnails, a Mac's shadows, a repository.
    Raises FastudaError for a folder that may not be read.
    """
    yield from _below(folder, frozenset({os.path.realpath(folder)}))


def folders_below(folder: Path) -> Iterator[Path]:
    """`folder` and every folder below it, by the rules of `files_below`."""
    yield from _folders(folder, frozenset({os.path.realpath(folder)}))


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, sorted; FastudaError for one that may not be read."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise FastudaError(f"{folder}: cannot be read ({error.strerror}); let your user read it") from error


def flattened_link(folder: Path) -> tuple[Path, str] | None:
    """A file right in `folder` that was a link before some tool copied it as text, and where that link led.

    Git without symbolic links and many archives do so: the file holds nothing but the path of something that is there.
    """
    for path in entries(folder):
        try:
            if path.is_file() and 0 < path.stat().st_size < _LONGEST_LINK:
                text = path.read_text().strip()
                if "\n" not in text and (folder / text).exists():
                    return path, text
        except (OSError, ValueError):
            continue
    return None


def _below(folder: Path, above: frozenset[str]) -> Iterator[Path]:
    for path in entries(folder):
        if path.name.startswith("."):
            continue
        if not path.is_dir():
            yield path
        elif (real := os.path.realpath(path)) not in above:
            yield from _below(path, above | {real})


def _folders(folder: Path, above: frozenset[str]) -> Iterator[Path]:
    yield folder
    for path in entries(folder):
        if not path.name.startswith(".") and path.is_dir() and (real := os.path.realpath(path)) not in above:
            yield from _folders(path, above | {real})
