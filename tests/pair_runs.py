"""Runs on folders of a few made pairs: their files, their settings, what they leave, what they open."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from fastuda.data.datasets import Datasets, prepare_all
from fastuda.recipe import Recipe

SIZE = (64, 32)
FIELDS = [
    *("model.depth=18", "model.width=0.0625", "model.weights=random", "runtime.loader_threads=1", "eval.pictures=1"),
    *("views.source_size=[96, 32]", "views.target_size=[64, 32]", "views.crop_size=[32, 32]", "eval.size=[64, 32]"),
    *("warmup.iterations=2", "train.iterations=6", "train.evaluate_every=3", "train.log_every=2"),
]
TARGET = ["images=train/*.png", "val_images=val/*.png", "val_labels=val-labels/*.png"]


def make_pair(image: Path, label: Path, seed: int) -> None:
    """A picture of noise and a label of a few stripes of classes."""
    rng = np.random.default_rng(seed)
    for path, content in (
        (image, rng.integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)),
        (label, np.repeat(rng.integers(0, 19, (4, SIZE[0]), np.uint8), SIZE[1] // 4, 0)),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(content).save(path)


def make_folders(root: Path) -> Path:
    """A source of 5 pairs, a target of 4 training pairs and 2 evaluation pairs."""
    for seed in range(5):
        make_pair(root / f"source/images/s{seed}.png", root / f"source/labels/s{seed}.png", seed)
    for seed in range(4):
        make_pair(root / f"target/train/t{seed}.png", root / f"target/train-labels/t{seed}.png", 50 + seed)
    for seed in range(2):
        make_pair(root / f"target/val/v{seed}.png", root / f"target/val-labels/v{seed}.png", 90 + seed)
    return root


def settings(root: Path, cache: Path, *more: str, labels: bool = True) -> list[str]:
    target = [*TARGET, *(["labels=train-labels/*.png"] if labels else [])]
    return [
        *("source.layout=folder", f"source.root={root / 'source'}", "source.images=images/*.png"),
        "source.labels=labels/*.png",
        *("target.layout=folder", f"target.root={root / 'target'}", *(f"target.{one}" for one in target)),
        *FIELDS,
        f"data.cache={cache}",
        *more,
    ]


def packed(recipe: Recipe) -> Datasets:
    return prepare_all(recipe, lambda _: lambda done, total: None)


def model(path: Path, stage: str) -> dict[str, Tensor]:
    return load_file(path / "checkpoints" / f"{stage}-last.safetensors")


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


@contextmanager
def opened(part: str) -> Iterator[list[str]]:
    """The paths with `part` in them that this process opens meanwhile; an audit hook stays, so it is switched off."""
    seen: list[str] = []
    watching = [True]

    def hook(event: str, arguments: Any) -> None:
        if watching[0] and event == "open" and part in str(arguments[0]):
            seen.append(str(arguments[0]))

    sys.addaudithook(hook)
    try:
        yield seen
    finally:
        watching[0] = False
