"""Paths as users write them, in options, recipe fields and environment variables: one way to read them all."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from fastuda.errors import FastudaError, UsageError
from fastuda.files.regular_file import read_regular
from fastuda.printable import brief, on_one_line

_LONGEST_LINK = 4096
_WAYS = 64
"""How many links may lead to one folder below another: each doubles what lies below, and links can lead to links."""


def user_path(text: str | os.PathLike[str]) -> Path:
    """The path with `~` and `~user` replaced; relative ones stay relative to the folder one works in.

    Raises UsageError for the home of a user that this machine does not know, and for what no file can be called.
    """
    if "\0" in os.fspath(text):
        raise UsageError(f"{brief(os.fspath(text))}: a path cannot hold a NUL character")
    path = Path(text)
    try:
        return path.expanduser()
    except RuntimeError as error:
        name = on_one_line(path)
        raise UsageError(f"{name}: this machine knows no such user's home folder; write the path in full") from error


def is_folder(path: Path) -> bool:
    """Whether a path leads to a folder; false, too, where a name is too long, a link a circle, or a folder locked."""
    return os.path.isdir(path)  # pathlib's own raises for these


def is_file(path: Path) -> bool:
    """Whether a path leads to a regular file, likewise."""
    return os.path.isfile(path)


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below `folder`, through linked folders too, sorted within each.

    A link back up ends there, and what begins with a dot is left out: thumbnails, a Mac's shadows, a repository.
    Raises FastudaError for a folder that may not be read, and for one to which very many links lead.
    """
    return (path for path, is_inner in _walk(folder) if not is_inner)


def folders_below(folder: Path) -> Iterator[Path]:
    """`folder` and every folder below it, by the rules of `files_below`."""
    yield folder
    yield from (path for path, is_inner in _walk(folder) if is_inner)


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, sorted; FastudaError for one that may not be read."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise FastudaError(
            f"{on_one_line(folder)}: cannot be read ({error.strerror}); let your user read it"
        ) from error


def flattened_link(folder: Path) -> tuple[Path, str] | None:
    """A file right in `folder` that was a link before some tool copied it as text, and where that link led.

    Git without symbolic links and many archives do so: the file holds nothing but the path of something that is there.
    """
    for path in entries(folder):
        try:
            if path.is_file() and 0 < path.stat().st_size < _LONGEST_LINK:
                text = read_regular(path, _LONGEST_LINK).decode().strip()
                if "\n" not in text and (folder / text).exists():
                    return path, text
        except (OSError, ValueError):
            continue
    return None


def _walk(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Whatever lies below a folder, and whether it is a folder, each before what lies in it."""
    ways: Counter[str] = Counter()
    top = os.path.realpath(folder)
    # Not by recursion: folders can lie deeper than Python's calls.
    open_folders = [(iter(entries(folder)), frozenset({top}))]
    while open_folders:
        inner, above = open_folders[-1]
        path = next(inner, None)
        if path is None:
            open_folders.pop()
            continue
        if path.name.startswith("."):
            continue
        if not is_folder(path):
            yield path, False
        elif (real := os.path.realpath(path)) not in above:
            ways[real] += 1
            if ways[real] > _WAYS:
                raise FastudaError(
                    f"{on_one_line(path)}: links lead to this folder ({on_one_line(real)}) in more than {_WAYS} ways; "
                    "take links away, or name the folders themselves"
                )
            yield path, True
            open_folders.append((iter(entries(path)), above | {real}))
