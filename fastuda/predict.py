"""Predictions on images of any size, kept as colour overlays and label files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fastuda.classes import Values
from fastuda.data.globs import PICTURE_SUFFIXES
from fastuda.data.images import read_colour, read_file
from fastuda.errors import FastudaError
from fastuda.inference import evaluation_logits
from fastuda.label_bands import label_at
from fastuda.label_files import (
    TABLE,
    is_own_table,
    label_ending,
    require_free,
    write_class_values,
    write_label,
    write_png,
)
from fastuda.paths import files_below, flattened_link
from fastuda.pictures import overlay
from fastuda.trained import Trained

SUFFIXES = tuple(f".{suffix}" for suffix in PICTURE_SUFFIXES)
_OVERLAY = "_overlay.png"


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
        if path.is_dir():
            found = [p for p in files_below(path) if p.suffix.lower() in SUFFIXES]
            found = _without_predictions(path, found)
            if not found and (link := flattened_link(path)):
                raise FastudaError(
                    f"{link[0]}: a link to {link[1]} that was copied as text, and {path} holds no images; make it "
                    f"a link again (ln -sf {link[1]} {link[0]}), or name {path / link[1]} itself"
                )
            if not found:
                raise FastudaError(f"{path}: no images in this folder ({', '.join(PICTURE_SUFFIXES)})")
            inputs += [Input(p, str(p.relative_to(path).with_suffix(""))) for p in found]
        elif path.is_file():
            inputs.append(Input(path, path.stem))
        else:
            raise FastudaError(f"{path}: no such image or folder")
    by_name: dict[str, Path] = {}
    for item in inputs:
        other = by_name.setdefault(item.name, item.path)
        if other != item.path:
            raise FastudaError(f"{item.path} and {other} would both become {item.name}; predict them into two folders")
    return inputs


def _without_predictions(folder: Path, paths: list[Path]) -> list[Path]:
    """Without what `predict` wrote for these images, beside them or below them; its classes.json tells where it did."""
    known = {str(path.relative_to(folder).with_suffix("")) for path in paths}
    places = {place for path in paths for place in path.parents if place.is_relative_to(folder)}
    outs = [place for place in places if is_own_table(place / TABLE)]

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
    trained: Trained,
    inputs: Sequence[Input],
    out: Path,
    progress: Callable[[int, int], None],
    values: Values = "label-ids",
) -> None:
    """Write NAME_overlay.png (colours over the image) and the label PNG for each image, at its own size.

    The label is NAME_labelIds.png, or with `values` "train-ids" NAME_labelTrainIds.png; classes.json says which value
    is which class. Images are resized bicubic to `eval.size` for the network, as in evaluation (protocol row 23).
    Raises FastudaError naming an image that cannot be read or a file that cannot be written.
    """
    classes = trained.recipe.classes.build()
    require_free(out, [item.name for item in inputs], (_OVERLAY, label_ending(values)))
    write_class_values(out, classes, values)
    for done, item in enumerate(inputs, start=1):
        image = read_colour(read_file(item.path), item.path)
        resized = np.asarray(image.resize(trained.recipe.eval.size, Image.Resampling.BICUBIC))
        batch = torch.from_numpy(resized.copy())[None].to(trained.device)
        logits = evaluation_logits(trained.model, batch, trained.recipe.eval, trained.passes)
        label = label_at(logits, (image.height, image.width))
        write_label(out, item.name, label, classes, values)
        write_png(out / f"{item.name}{_OVERLAY}", overlay(np.asarray(image), label, classes))
        progress(done, len(inputs))
