"""Label files that fastuda writes: one PNG an image, and beside them which value is which class."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastuda.classes import ClassSet, Values
from fastuda.data.reading.listing import shown
from fastuda.data.reading.png import PngWriter
from fastuda.errors import FastudaError
from fastuda.files.disk import make_folder, whole_file, write_atomic
from fastuda.files.regular_file import read_regular

TABLE = "classes.json"
_LABEL_LEVEL, _OVERLAY_LEVEL = 6, 2
"""Deflate's: a higher one makes overlays a tenth smaller, in six times as long."""
_TABLE_LIMIT = 1 << 24


def write_label(out: Path, name: str, label: NDArray[np.uint8], classes: ClassSet, values: Values) -> None:
    """NAME_labelIds.png or NAME_labelTrainIds.png of train ids [H, W], each class with its own value."""
    with label_rows(out, name, (label.shape[1], label.shape[0]), classes, values) as write:
        write(label)


@contextlib.contextmanager
def label_rows(
    out: Path, name: str, size: tuple[int, int], classes: ClassSet, values: Values
) -> Iterator[Callable[[NDArray[np.uint8]], None]]:
    """A function that takes the rows of that file, train ids uint8 [h, W]; `size` is its width and height."""
    table = classes.value_table(values)
    with png_rows(out / f"{name}{label_ending(values)}", size) as write:
        yield lambda rows: write(table[rows])


def label_ending(values: Values) -> str:
    """How the names of label files of that kind end."""
    return "_labelIds.png" if values == "label-ids" else "_labelTrainIds.png"


def write_class_values(out: Path, classes: ClassSet, values: Values) -> None:
    """classes.json: the kind of values, and each class's value, label id, train id and colour, in train id order."""
    by_name, label_ids = classes.values(values), classes.label_ids()
    rows = [
        {
            "name": name,
            "value": by_name[name],
            "label_id": label_ids[name],
            "train_id": train_id,
            "colour": list(colour),
        }
        for train_id, (name, colour) in enumerate(zip(classes.names, classes.palette, strict=True))
    ]
    make_folder(out)
    content = json.dumps({"values": values, "files": f"*{label_ending(values)}", "classes": rows}, indent=2)
    write_atomic(out / TABLE, content.encode() + b"\n")


@contextlib.contextmanager
def png_rows(
    path: Path, size: tuple[int, int], *, colour: bool = False
) -> Iterator[Callable[[NDArray[np.uint8]], None]]:
    """A function that takes the rows of a PNG of `size` (width, height), uint8 [h, W] or with `colour` [h, W, 3].

    The file is whole or not at all, its folder made if need be. Raises FastudaError when the disk refuses.
    """
    make_folder(path.parent)
    with whole_file(path) as write:
        writer = PngWriter(write, size, colour=colour, level=_OVERLAY_LEVEL if colour else _LABEL_LEVEL)
        yield writer.write
        writer.finish()


def require_free(out: Path, names: Sequence[str], endings: Sequence[str]) -> None:
    """FastudaError when writing NAME + ENDING below `out` would replace files that fastuda did not write.

    A folder of earlier predictions is known by its classes.json.
    """
    table = out / TABLE
    if is_own_table(table):
        return
    taken = [table] if os.path.lexists(table) else []
    taken += [path for name in names for ending in endings if os.path.lexists(path := out / f"{name}{ending}")]
    if taken:
        raise FastudaError(
            f"{shown(taken)}: would be overwritten, and was not written by fastuda, as far as {table} tells; choose "
            "another folder for the predictions"
        )


def is_own_table(path: Path) -> bool:
    """Whether a file is the table that `write_class_values` writes, and not a user's of that name."""
    try:
        content = json.loads(read_regular(path, _TABLE_LIMIT))
        return bool({"values", "files", "classes"} <= content.keys())
    except (OSError, ValueError, AttributeError, RecursionError):
        return False
