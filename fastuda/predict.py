"""Predictions on images of any size, kept as colour overlays and label PNGs."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fastuda.classes import ClassSet, Values
from fastuda.data.cache import make_folder, write_atomic
from fastuda.data.globs import PICTURE_SUFFIXES
from fastuda.data.images import read_colour, read_file
from fastuda.data.listing import shown
from fastuda.errors import FastudaError
from fastuda.inference import evaluation_logits
from fastuda.paths import files_below, flattened_link
from fastuda.pictures import overlay
from fastuda.trained import Trained

SUFFIXES = tuple(f".{suffix}" for suffix in PICTURE_SUFFIXES)
_OVERLAY = "_overlay.png"
_TABLE = "classes.json"


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
            found = _without_predictions([p for p in files_below(path) if p.suffix.lower() in SUFFIXES])
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


def _without_predictions(paths: list[Path]) -> list[Path]:
    """Without what `predict` wrote beside images; its classes.json tells it from a user's files of such names."""
    known = {str(path.with_suffix("")) for path in paths}

    def written(path: Path) -> bool:
        for ending in (_OVERLAY, label_ending("label-ids"), label_ending("train-ids")):
            if path.name.endswith(ending) and str(path)[: -len(ending)] in known:
                return any(_is_our_table(folder / _TABLE) for folder in (path.parent, *path.parents))
        return False

    return [path for path in paths if not written(path)]


def require_free(out: Path, names: Sequence[str], endings: Sequence[str]) -> None:
    """FastudaError when writing NAME + ENDING below `out` would replace files that fastuda did not write.

    A folder of earlier predictions is known by its classes.json.
    """
    table = out / _TABLE
    if _is_our_table(table):
        return
    taken = [table] if table.exists() else []
    taken += [path for name in names for ending in endings if (path := out / f"{name}{ending}").exists()]
    if taken:
        raise FastudaError(
            f"{shown(taken)}: would be overwritten, and was not written by fastuda, as far as {table} tells; choose "
            "another folder for the predictions"
        )


def _is_our_table(path: Path) -> bool:
    try:
        content = json.loads(path.read_text())
        return bool({"values", "files", "classes"} <= content.keys())
    except (OSError, ValueError, AttributeError):
        return False


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
        _write_png(out / f"{item.name}{_OVERLAY}", overlay(np.asarray(image), label, classes))
        progress(done, len(inputs))


def label_at(logits: Tensor, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Train ids uint8 [H, W] at `size` (height, width) from low-resolution logits [1, C, H', W'].

    Interpolated and chosen as `argmax_confusion` scores them, so that files hold what was counted.
    """
    full = F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=True)
    return full.argmax(1)[0].to(torch.uint8).cpu().numpy()


def write_label(out: Path, name: str, label: NDArray[np.uint8], classes: ClassSet, values: Values) -> None:
    """NAME_labelIds.png or NAME_labelTrainIds.png of train ids [H, W], each class with its own value."""
    _write_png(out / f"{name}{label_ending(values)}", classes.value_table(values)[label])


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
    write_atomic(out / _TABLE, content.encode() + b"\n")


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    make_folder(path.parent)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    write_atomic(path, buffer.getvalue())
