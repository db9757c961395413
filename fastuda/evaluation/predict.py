"""Predictions on images of any size, kept as colour overlays and label files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fastuda.classes import Values, known_values
from fastuda.data.reading.faults import SampleError
from fastuda.data.reading.globs import PICTURE_SUFFIXES
from fastuda.data.reading.photograph import bands, read_photograph
from fastuda.distributed.ranks import ALONE, Ranks
from fastuda.errors import FastudaError
from fastuda.evaluation.label_files import (
    TABLE,
    is_own_table,
    label_ending,
    label_rows,
    png_rows,
    require_free,
    write_class_values,
)
from fastuda.evaluation.model import Model
from fastuda.files.paths import files_below, flattened_link, is_file, is_folder
from fastuda.memory.out_of_memory import memory_told
from fastuda.printable import on_one_line
from fastuda.report.pictures import overlay

SUFFIXES = tuple(f".{suffix}" for suffix in PICTURE_SUFFIXES)
_OVERLAY = "_overlay.png"
_LONGEST_NAME = 225
"""Bytes: of the 255 that a name may have, files that are being written need the rest."""


@dataclass(frozen=True)
class Input:
    """An image file and the name, possibly with folders, that its predictions get."""

    path: Path
    name: str


def find_images(paths: Sequence[Path]) -> list[Input]:
    """Image files named or found below the folders named, linked ones too, sorted within each folder.

    Labels and overlays that `predict` wrote beside their images are no images.
    Raises FastudaError for a path that is not there, a folder without images, or two images whose
    predictions would overwrite each other.
    """
    inputs: list[Input] = []
    for path in paths:
        if is_folder(path):
            found = [p for p in files_below(path) if p.suffix.lower() in SUFFIXES]
            found = _without_predictions(path, found)
            if not found and (link := flattened_link(path)):
                raise FastudaError(
                    f"{on_one_line(link[0])}: a link to {on_one_line(link[1])} that was copied as text, and "
                    f"{on_one_line(path)} holds no images; make it a link again "
                    f"(ln -sf {on_one_line(link[1])} {on_one_line(link[0])}), or name {on_one_line(path / link[1])} "
                    "itself"
                )
            if not found:
                raise FastudaError(f"{on_one_line(path)}: no images in this folder ({', '.join(PICTURE_SUFFIXES)})")
            inputs += [Input(p, str(p.relative_to(path).with_suffix(""))) for p in found]
        elif is_file(path):
            inputs.append(Input(path, path.stem))
        else:
            there = "is no file or folder" if os.path.lexists(path) else "no such image or folder"
            raise FastudaError(f"{on_one_line(path)}: {there}")
    by_name: dict[str, Path] = {}
    for item in inputs:
        other = by_name.setdefault(item.name, item.path)
        if other != item.path:
            raise FastudaError(
                f"{on_one_line(item.path)} and {on_one_line(other)} would both become {on_one_line(item.name)}; "
                "predict them into two folders"
            )
    return inputs


def _without_predictions(folder: Path, paths: list[Path]) -> list[Path]:
    """Without what `predict` wrote for these images, beside them or below them; its classes.json tells where it did."""
    known = {str(path.relative_to(folder).with_suffix("")) for path in paths}
    places = {place for path in paths for place in path.parents if place.is_relative_to(folder)}
    outs = [place for place in places if is_file(place / TABLE) and is_own_table(place / TABLE)]

    def written(path: Path) -> bool:
        return any(
            path.is_relative_to(out)
            and path.name.endswith(ending)
            and str(path.relative_to(out))[: -len(ending)] in known
            for out in outs
            for ending in (_OVERLAY, label_ending("label-ids"), label_ending("train-ids"))
        )

    return [path for path in paths if not written(path)]


@torch.no_grad()
def predict(
    model: Model,
    inputs: Sequence[Input],
    out: Path,
    progress: Callable[[int, int], None],
    values: Values = "label-ids",
    *,
    tiled: bool = False,
    ranks: Ranks = ALONE,
) -> list[SampleError]:
    """Write NAME_overlay.png (colours over the image) and the label PNG for each image, at its own size.

    The label is NAME_labelIds.png, or with `values` "train-ids" NAME_labelTrainIds.png; classes.json says which value
    is which class. The labels are those of `Model.predict`, as is `tiled`. Beyond the network's memory an image takes
    what its decoder makes of it, 4 bytes a pixel, and little that grows with its size.

    Of several `ranks` each predicts a share of the images, with a model of its own, and returns all faults.

    Returns a fault for each image that cannot be read; the others are predicted. Raises UsageError for `values` of
    another name, FastudaError naming a file that cannot be written, or when memory runs out.
    """
    values = known_values(values)

    def begin() -> None:
        require_free(out, [item.name for item in inputs], (_OVERLAY, label_ending(values)))
        write_class_values(out, model.classes, values)

    ranks.shared(begin)
    mine, faults = inputs[ranks.rank :: ranks.size], []
    for done, item in enumerate(mine, start=1):
        try:
            with memory_told("prediction", model.recipe, model.device):
                _predict_one(model, item, out, values, tiled=tiled)
        except SampleError as error:
            # A new one: the old one's frames hold the image.
            faults.append(SampleError(error.kind, error.path, error.detail))
        progress(done, len(mine))
    told = [fault for found in ranks.gathered([(one.kind, one.path, one.detail) for one in faults]) for fault in found]
    places = {item.path: place for place, item in enumerate(inputs)}
    return [SampleError(*fault) for fault in sorted(told, key=lambda fault: places.get(fault[1], 0))]


def _predict_one(model: Model, item: Input, out: Path, values: Values, *, tiled: bool) -> None:
    photograph = read_photograph(item.path)
    _require_short_name(item, (_OVERLAY, label_ending(values)))
    classes = model.classes
    width, top = photograph.size[0], 0
    with (
        label_rows(out, item.name, photograph.size, classes, values) as write_label,
        png_rows(out / f"{item.name}{_OVERLAY}", photograph.size, colour=True) as write_overlay,
    ):
        for label, _ in model.answers(photograph, tiled=tiled):
            write_label(label)
            for start, stop in bands(len(label), width):
                pixels = np.asarray(photograph.piece((0, top + start, width, top + stop)))
                write_overlay(overlay(pixels, label[start:stop], classes))
            top += len(label)


def _require_short_name(item: Input, endings: Sequence[str]) -> None:
    name = Path(item.name).name
    over = max(len(os.fsencode(name + ending)) for ending in endings) - _LONGEST_NAME
    if over > 0:
        raise SampleError(
            "name", item.path, f"its name is {over} bytes too long for NAME{endings[0]} and NAME{endings[1]}; rename it"
        )
