"""Globs over a user's folder: the files they find, and the name that each has by what the wildcards stand for.

A suffix is no part of a name, and its case does not matter: `images/*.{jpg,png}` finds `1.jpg`, `2.JPG` and `3.png`
under the names 1, 2 and 3, and `images/*` and `images/*.*` every picture. Braces elsewhere are wildcards of few
values: `{fog,rain}/*.png`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path

from fastuda.errors import UsageError
from fastuda.files.paths import entries, folders_below, is_folder, user_path
from fastuda.printable import brief

PICTURE_SUFFIXES = (
    "png", "jpg", "jpeg", "jpe", "jfif", "bmp", "tif", "tiff", "webp", "gif", "jp2", "ppm", "pgm", "tga", "avif",
    "heic", "heif",
)  # fmt: skip
"""What a glob that leaves the suffix open takes for a picture."""

_WILDCARD = re.compile(r"\*\*/?|\*|\?|\[!?\]?[^]]*\]")
_BRACES = re.compile(r"\{([^{}]*,[^{}]*)\}")
_SPECIAL = re.compile(r"[*?[]")
_LONGEST, _MOST_CHOICES = 4096, 1000
# The time to look grows with a power of each of these.
_MOST_WILDCARDS, _MOST_DEEP, _MOST_STARS = 16, 2, 4


@dataclass(frozen=True)
class Found:
    """One file, and its name: what the wildcards stand for, joined by slashes."""

    name: str
    path: Path


@dataclass(frozen=True)
class Glob:
    """One pattern without braces."""

    text: str
    shape: str
    """A regular expression over the path below the root, with a group for every wildcard."""
    num_wildcards: int
    literals: int
    """Characters that are no wildcard: the more, the narrower."""

    def find(self, root: Path, *, blind: bool = False) -> Iterator[Found]:
        """The files that match, sorted, links followed; with `blind` whatever the case of any part of the path."""
        shape = re.compile(self.shape, re.IGNORECASE if blind else 0)
        for found in sorted(_walk(root, self.text, blind)):
            match = shape.fullmatch(found)
            if match is not None:
                groups = "/".join(part for part in match.groups() if part)
                yield Found(groups or Path(found).stem, root / found)


def parse(patterns: str | Sequence[str], *, any_suffix: bool = False) -> list[Glob]:
    """The globs that a recipe's field stands for: one pattern or several, braces expanded.

    With `any_suffix` the same under every picture's suffix. Raises UsageError for a pattern that cannot be read, or
    that would take for ever to look for.
    """
    several = [patterns] if isinstance(patterns, str) else patterns
    for pattern in several:
        _require_feasible(pattern)
    at_home = [str(user_path(pattern)) if pattern.startswith("~") else pattern for pattern in several]
    return [glob for pattern in at_home for glob in _expanded(pattern, any_suffix)]


def _require_feasible(pattern: str) -> None:
    def refuse(why: str) -> UsageError:
        return UsageError(f"the glob {brief(pattern)} {why}; write it as images/*.png, say")

    if "\0" in pattern:
        raise refuse("holds a NUL character")
    if not pattern.strip("/ "):
        raise refuse("names no file")
    if len(pattern) > _LONGEST:
        raise refuse(f"has more than {_LONGEST:,} characters")
    if prod(match[1].count(",") + 1 for match in _BRACES.finditer(pattern)) > _MOST_CHOICES:
        raise refuse(f"stands for more than {_MOST_CHOICES:,} patterns: too many braces")
    if len(_WILDCARD.findall(pattern)) > _MOST_WILDCARDS:
        raise refuse(f"has more than {_MOST_WILDCARDS} wildcards")
    if pattern.count("**") > _MOST_DEEP:
        raise refuse(f"has more than {_MOST_DEEP} times **")
    if any(len(re.findall(r"\*+", part)) > _MOST_STARS for part in pattern.split("/")):
        raise refuse(f"has more than {_MOST_STARS} times * in one name")
    for wildcard in _WILDCARD.findall(pattern):
        try:
            re.compile(_group(wildcard))
        except re.error as error:
            raise refuse(f"has the brackets {wildcard}, which mean no set of characters ({error.msg})") from error


def find(root: Path, globs: Iterable[Glob], *, blind: bool = False) -> list[Found]:
    """The files that any of the globs finds, each once, sorted by path."""
    by_path: dict[Path, Found] = {}
    for glob in globs:
        for found in glob.find(root, blind=blind):
            by_path.setdefault(found.path, found)
    return [by_path[path] for path in sorted(by_path)]


def _expanded(pattern: str, any_suffix: bool) -> Iterator[Glob]:
    braces = list(_BRACES.finditer(pattern))
    for choice in product(*([one.strip() for one in match[1].split(",")] for match in braces)):
        text, end, chosen = "", 0, []
        for match, alternative in zip(braces, choice, strict=True):
            text += pattern[end : match.start()]
            chosen.append((len(text), len(text) + len(alternative)))
            text += alternative
            end = match.end()
        yield _glob(text + pattern[end:], chosen, any_suffix)


def _glob(text: str, chosen: list[tuple[int, int]], any_suffix: bool) -> Glob:
    """`chosen` are the places that braces have filled: wildcards too, unless they are (part of) the suffix."""
    start = text.rfind("/") + 1
    dot = text.rfind(".", start)
    cut = dot if dot >= start else len(text)
    marks = [match.span() for match in _WILDCARD.finditer(text)] + [span for span in chosen if span[1] <= cut]
    shape, end, count, literals = "", 0, 0, 0
    for first, last in sorted(marks):
        if first >= cut or first < end:
            continue
        shape += re.escape(text[end:first]) + _group(text[first:last])
        literals += first - end
        count, end = count + 1, last
    shape += re.escape(text[end:cut]) if end < cut else ""
    literals += max(len(text) - end, 0)
    suffix = text[cut + 1 :]
    if any_suffix or cut == len(text) or _SPECIAL.search(suffix):
        wanted = "*" if any_suffix or cut == len(text) else suffix
        fitting = [known for known in PICTURE_SUFFIXES if re.fullmatch(_plain(wanted), known, re.IGNORECASE)]
        shape += rf"\.(?i:{'|'.join(fitting) or '(?!)'})"
    else:
        shape += rf"\.(?i:{re.escape(suffix)})"
    return Glob(text[:cut] + ".*", shape, count, literals)


def _group(wildcard: str) -> str:
    if wildcard == "**/":
        return "(?:(.+)/)?"
    if wildcard == "**":
        return "(.*)"
    if wildcard in ("*", "?"):
        return "([^/]*)" if wildcard == "*" else "([^/])"
    if wildcard.startswith("["):
        inner = wildcard[1:-1]
        negated = inner.startswith("!")
        # What a regular expression would read as something else than these characters.
        members = re.sub(r"([\\[\]^&|~])", r"\\\1", inner.removeprefix("!")).replace("--", r"-\-")
        return f"([{'^' * negated}{members}])"
    return "(" + re.escape(wildcard) + ")"


def _plain(part: str) -> str:
    """A part of a path as a regular expression without groups to keep."""
    shape, end = "", 0
    for wildcard in _WILDCARD.finditer(part):
        group = _group(wildcard.group()).replace("(", "(?:", 1) if wildcard.group() != "**/" else "(?:.*/)?"
        shape += re.escape(part[end : wildcard.start()]) + group
        end = wildcard.end()
    return shape + re.escape(part[end:])


def _walk(root: Path, pattern: str, blind: bool) -> Iterator[str]:
    """Files, as paths below `root`, that may match; those whose name begins with a dot are nobody's samples."""
    *folders, last = pattern.split("/")
    places = [""]
    if pattern.startswith("/"):
        folders, places = folders[1:], ["/"]
    for folder in folders:
        places = [inner for place in places for inner in _inside(root, place, folder, blind)]
    deep = last.startswith("**")
    for place in dict.fromkeys(places):
        top = root / place
        for where in folders_below(top) if deep else [top] if is_folder(top) else []:
            for path in entries(where):
                if (last.startswith(".") or not path.name.startswith(".")) and not is_folder(path):
                    yield place + os.path.relpath(path, top)


def _inside(root: Path, place: str, folder: str, blind: bool) -> Iterator[str]:
    """The folders that one part of a pattern leads to from `place`, each with a slash at its end."""
    if folder == "**":
        for path in folders_below(root / place):
            below = os.path.relpath(path, root / place)
            yield place if below == "." else f"{place}{below}/"
    elif folder in ("", ".", "..") or not (blind or _SPECIAL.search(folder)):
        if is_folder(root / place / folder):
            yield f"{place}{folder}/"
    else:
        shape = re.compile(_plain(folder), re.IGNORECASE if blind else 0)
        for path in entries(root / place):
            if shape.fullmatch(path.name) and not path.name.startswith(".") and is_folder(path):
                yield f"{place}{path.name}/"
