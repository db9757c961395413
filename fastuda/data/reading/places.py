"""Files of a known data set, found in the places that its layout names."""

from __future__ import annotations

from pathlib import Path

from fastuda.data.reading import globs
from fastuda.data.reading.globs import Found
from fastuda.errors import FastudaError
from fastuda.files.paths import entries, is_folder
from fastuda.layouts import SPLIT, Files, Layout
from fastuda.printable import on_one_line

_Folder = tuple[tuple[str, ...], Path]
"""What the wildcards on the way to a folder stand for, and the folder."""


def placed_images(root: Path, layout: Layout, split: str) -> tuple[list[Found], list[Path]]:
    """The images of one split, and pictures beside them of a kind that the layout does not expect.

    `split` is a name of the layout's `splits`, or that of a folder; a layout without splits leaves it aside.
    FastudaError names the folder that is not there, or holds no image, and what was expected.
    """
    assert layout.images is not None
    folders = _folders(root, layout.images, layout, split)
    images = _files(folders, layout.images)
    if not images:
        raise _nothing(root, layout.images, layout, split)
    others: list[Path] = []
    if all(ending.startswith(".") for ending in layout.images.endings):
        known = {one.name for one in images}
        pictures = [(names, one) for names, folder in folders for one in globs.find(folder, globs.parse("*"))]
        others = [one.path for names, one in pictures if "/".join((*names, one.name)) not in known]
    return images, others


def placed_labels(root: Path, layout: Layout, split: str) -> list[Found]:
    """The label files of one split, of each sample those of the kind that the layout prefers.

    FastudaError as `placed_images`, and for a split that comes without labels.
    """
    if split in layout.splits and split not in layout.labelled:
        raise FastudaError(
            f"{on_one_line(root)}: {layout.title} comes without labels of its split {split}; those of "
            f"{', '.join(layout.labelled)} have labels, and images alone can be a target to train on"
        )
    found: dict[str, list[Found]] = {}
    for kind in layout.labels:
        more: dict[str, list[Found]] = {}
        for one in _files(_folders(root, kind, layout, split), kind):
            more.setdefault(one.name, []).append(one)
        found = more | found
    if not found:
        raise _nothing(root, layout.labels[0], layout, split)
    return sorted((one for several in found.values() for one in several), key=lambda one: one.path)


def _files(folders: list[_Folder], files: Files) -> list[Found]:
    """The files in some folders that end as they should, whatever their case."""
    found = []
    for names, folder in folders:
        for path in entries(folder):
            ending = next((one for one in files.endings if path.name.lower().endswith(one.lower())), None)
            if ending is not None and not path.name.startswith("."):
                found.append(Found("/".join((*names, path.name[: -len(ending)])), path))
    return found


def _folders(root: Path, files: Files, layout: Layout, split: str) -> list[_Folder]:
    """The folders of the first place that is there, none when none is."""
    for place in files.places:
        head, rest = _parts(place, layout, split)
        if folders := _lead(root, head):
            return [((*names, *more), inner) for names, folder in folders for more, inner in _lead(folder, rest)]
    return []


def _parts(place: str, layout: Layout, split: str) -> tuple[list[str], list[str]]:
    """The parts of a place up to the last that has a name of its own, and the wildcards between that and the files."""
    *parts, _ = place.split("/")
    named = [i for i, part in enumerate(parts) if part == SPLIT or not _is_wildcard(part)]
    cut = named[-1] + 1 if named else 0
    folder = layout.splits.get(split, split)
    return [folder if part == SPLIT else part for part in parts[:cut]], parts[cut:]


def _is_wildcard(part: str) -> bool:
    return part.startswith("{")


def _lead(root: Path, parts: list[str]) -> list[_Folder]:
    """The folders below `root` to which parts of a place lead."""
    folders: list[_Folder] = [((), root)]
    for part in parts:
        if _is_wildcard(part):
            below = [(names, path) for names, folder in folders for path in entries(folder)]
            folders = [((*names, path.name), path) for names, path in below if is_folder(path)]
        else:
            folders = [(names, folder / part) for names, folder in folders if is_folder(folder / part)]
    return folders


def _nothing(root: Path, files: Files, layout: Layout, split: str) -> FastudaError:
    """Why `files` are not found: their folder is not there, or holds none of them."""
    there = [place for place in files.places if _lead(root, _parts(place, layout, split)[0])]
    head, rest = _parts((there or files.places)[0], layout, split)
    folder = root / _words(head)
    if not there:
        what = f"no such folder{_hint(root, files, layout, split)}"
    elif rest:
        what = f"holds no {_words(rest)}/*{files.endings[0]}"
    else:
        what = f"holds no {' or '.join(files.endings)} file"
    return FastudaError(f"{on_one_line(folder)}: {what}; layout {layout.name} expects {layout.expected}")


def _words(parts: list[str]) -> str:
    """Parts of a place as a person reads them: `leftImg8bit/train`, `CITY`."""
    return "/".join(part.strip("{}").upper() if _is_wildcard(part) else part for part in parts)


def _hint(root: Path, files: Files, layout: Layout, split: str) -> str:
    """What is there instead: other splits, or a folder of that name in another case."""
    if not layout.splits:
        folder = root / _words(_parts(files.places[0], layout, split)[0])
        around = entries(folder.parent) if is_folder(folder.parent) else []
        near = [path.name for path in around if path.name.lower() == folder.name.lower()]
        return f" ({near[0]} is there: write it as {folder.name})" if near else ""
    above = [place.split("/")[: place.split("/").index(SPLIT)] for place in files.places]
    *deeper, _ = layout.splits.get(split, split).split("/")
    for depth in range(len(deeper), -1, -1):
        for outer in [[*parts, *deeper[:depth]] for parts in above]:
            inner = {path.name for _, one in _lead(root, outer) for path in entries(one) if is_folder(path)}
            if inner:
                return f" ({_words(outer) or 'it'} has only {on_one_line(', '.join(sorted(inner)), 200)})"
    return f" (there is no {_words(above[0]) or 'folder'})"
