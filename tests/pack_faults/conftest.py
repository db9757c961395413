"""Files to pack, a recipe of their size, and their packs in each format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pack_faults.sound import HEIGHT, NUM_SAMPLES, WIDTH, Sound
from PIL import Image

from fastuda.recipe import Recipe
from fastuda.recipe.file import load_recipe


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    size = f"[{WIDTH}, {HEIGHT}]"
    settings = [f"views.source_size={size}", f"views.target_size={size}", "views.crop_size=[16, 16]"]
    return load_recipe("gta2cs", [*settings, "runtime.loader_threads=1", 'classes.names=["a", "b", "c"]'])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("files")
    for kind in ("images", "labels"):
        (root / kind).mkdir()
    for i in range(NUM_SAMPLES):
        rng = np.random.default_rng(i)
        coarse = Image.fromarray(rng.integers(0, 256, (6, 10, 3), np.uint8))
        coarse.resize((2 * WIDTH, 2 * HEIGHT), Image.Resampling.BICUBIC).save(root / f"images/{i:03d}.png")
        label = rng.integers(0, 3, (6, 10), np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(label).save(root / f"labels/{i:03d}.png")
    return root


@pytest.fixture(scope="module")
def sound(root: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Sound]:
    known: dict[str, Sound] = {}

    def get(format: str) -> Sound:
        if format not in known:
            known[format] = Sound(tmp_path_factory.mktemp(format), root, recipe, format)
        return known[format]

    return get
