"""A user's list of sample names, which narrows what is trained on (protocol row 26)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from unicodedata import normalize

from fastuda.data.reading.listing import FilesByName
from fastuda.errors import FastudaError
from fastuda.files.text_file import read_text, without_comment
from fastuda.printable import brief, on_one_line


def chosen_names(listing: Path, images: FilesByName, also: Iterable[str] = ()) -> set[str]:
    """The sample names that a list means: one a line, as a name or as a file's, with or without its folder.

    `also` are names that have no single image and may be listed all the same. FastudaError names a line that
    means no sample, or more than one, and a list that cannot be read or is empty.
    """
    try:
        lines = read_text(listing).split("\n")
    except OSError as error:
        raise FastudaError(f"{on_one_line(listing)}: cannot read this list of names ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise FastudaError(
            f"{on_one_line(listing)}: cannot read this list of names ({error}); save it as UTF-8 text"
        ) from error
    known = _aliases(images) | {name: name for name in also}
    chosen: set[str] = set()
    for whole in lines:
        # A name may have a # of its own; only what is no name as it stands has its comment taken off.
        candidates = [normalize("NFC", line.strip().replace("\\", "/")) for line in (whole, without_comment(whole))]
        if not candidates[1] and candidates[0] not in known:
            continue
        name = next((known[line] for line in candidates if line in known), None)
        if name is None:
            example = next(iter({**images, **dict.fromkeys(known)}), "none at all")
            raise FastudaError(
                f"{on_one_line(listing)}: lists {brief(candidates[1])}, and no image has this name (names look like "
                f"{brief(example)})"
            )
        chosen.add(name)
    if not chosen:
        raise FastudaError(f"{on_one_line(listing)}: lists no name; write one a line, or drop `listing`")
    return chosen


def _aliases(images: FilesByName) -> dict[str, str]:
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
