"""A user's list of sample names, which narrows what is trained on (protocol row 26)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fastuda.data.listing import Files
from fastuda.errors import FastudaError
from fastuda.text_file import read_lines


def chosen_names(listing: Path, images: Files, also: Iterable[str] = ()) -> set[str]:
    """The sample names that a list means: one a line, as a name or as a file's, with or without its folder.

    `also` are names that have no single image and may be listed all the same. FastudaError names a line that
    means no sample, or more than one, and a list that cannot be read or is empty.
    """
    try:
        lines = read_lines(listing)
    except (OSError, UnicodeDecodeError) as error:
        raise FastudaError(f"{listing}: cannot read this list of names ({error}); save it as UTF-8 text") from error
    known = _aliases(images) | {name: name for name in also}
    chosen: set[str] = set()
    for line in lines:
        name = known.get(line.replace("\\", "/"))
        if name is None:
            raise FastudaError(
                f"{listing}: lists {line!r}, and no image has this name (names look like {next(iter(images))!r})"
            )
        chosen.add(name)
    if not chosen:
        raise FastudaError(f"{listing}: lists no name; write one a line, or drop `listing`")
    return chosen


def _aliases(images: Files) -> dict[str, str]:
    """Every way to write a sample's name in a list: as it is, or its file's name, with or without folder."""
    aliases: dict[str, str] = {}
    shared: set[str] = set()
    for name, path in images.items():
        folder = path.parent.name
        written = {path.stem, path.name, f"{folder}/{path.stem}", f"{folder}/{path.name}", name + path.suffix}
        for alias in written | {name.rpartition("/")[2]}:
            if aliases.setdefault(alias, name) != name:
                shared.add(alias)
    for alias in shared:
        del aliases[alias]
    return aliases | {name: name for name in images}
