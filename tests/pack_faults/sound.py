"""An undamaged pack of five small samples, and what comes of it: files, and batches of both loaders."""

from __future__ import annotations

import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastuda.data.loading.evaluation_loader import EvaluationLoader
from fastuda.data.loading.training_loader import TrainingLoader
from fastuda.data.packing import prepare
from fastuda.data.packing.pack import Packed
from fastuda.recipe import Data, Domain, Recipe

CPU = torch.device("cpu")
WIDTH, HEIGHT = 40, 24
NUM_SAMPLES = 5
NUM_BATCHES = 8


def packed_in(cache: Path, root: Path, recipe: Recipe, format: str = "png", labels: str = "resized") -> Packed:
    return prepare.prepare(
        Domain(layout="folder", root=root, images="images/*.png", labels="labels/*.png"),
        "train",
        size=(WIDTH, HEIGHT),
        labels=labels,  # type: ignore[arg-type]
        classes=recipe.classes.build(),
        data=Data.model_validate({"cache": cache, "pack": format}),
        workers=1,
    )


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def tensors(batch: Any) -> list[Any]:
    """A batch's fields, flat; DALI's own memory is copied."""
    fields = [one for field in batch for one in (field if isinstance(field, list) else [field])]
    return [one.clone() if isinstance(one, Tensor) else one for one in fields]


def same(one: list[list[Any]], other: list[list[Any]]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b
        for batch, wanted in zip(one, other, strict=True)
        for a, b in zip(batch, wanted, strict=True)
    )


def everything(packed: Packed, recipe: Recipe) -> tuple[list[list[Any]], list[list[Any]]]:
    training = [tensors(batch) for batch in islice(TrainingLoader(packed, "source", recipe, CPU), NUM_BATCHES)]
    return training, [tensors(batch) for batch in EvaluationLoader(packed, 2, 1, CPU)]


class Sound:
    """An undamaged pack: where it lies, and all that comes of it."""

    def __init__(self, cache: Path, root: Path, recipe: Recipe, format: str) -> None:
        self.cache, self.root, self.recipe, self.format = cache, root, recipe, format
        self.packed = packed_in(cache, root, recipe, format)
        self.content = content(self.packed.folder)
        self.batches = everything(self.packed, recipe)

    def copy(self, cache: Path) -> Path:
        shutil.copytree(self.cache, cache)
        return cache / self.packed.folder.name

    def open(self, cache: Path) -> Packed:
        return packed_in(cache, self.root, self.recipe, self.format)


def ruined(packed: Packed, index: int, kind: str = "images") -> Path:
    path = packed.path(index, kind)  # type: ignore[arg-type]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    return path
