"""A model scored on other images of its own data set, found by globs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import fastuda as command
from PIL import Image
from steps import small_network

import fastuda
from fastuda.errors import UsageError
from fastuda.recipe import Recipe
from fastuda.recipe.file import dump_recipe
from fastuda.runs.checkpoint import save_model

FOLDER = ("target.layout=folder", "target.images=train/*.png", "target.val_images=val/*.png")
VAL = ("target.val_labels=val_labels/*.png",)
OTHERS = ("train/*.png", "train_labels/*.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three training images and two evaluation images of noise, with labels."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 2)):
        for kind in (split, f"{split}_labels"):
            (tmp_path / kind).mkdir()
        for at in range(count):
            Image.fromarray(rng.integers(0, 256, (32, 64, 3), np.uint8)).save(tmp_path / split / f"{at}.png")
            Image.fromarray(rng.integers(0, 3, (32, 64), np.uint8)).save(tmp_path / f"{split}_labels" / f"{at}.png")
    return tmp_path


@pytest.fixture
def model_file(tmp_path: Path, tiny_recipe: Callable[..., Recipe]) -> Path:
    path, recipe = tmp_path / "own.safetensors", tiny_recipe(*FOLDER, *VAL)
    save_model(path, small_network(recipe), recipe, {"iteration": 3})
    return path


def test_globs_of_evaluate_stand_for_those_of_the_recipe(folder: Path, model_file: Path) -> None:
    model = fastuda.load(model_file, device="cpu")
    others = fastuda.evaluate(model, folder, images=OTHERS[0], labels=OTHERS[1], display=False)
    (folder / "val").rename(folder / "val_before")
    (folder / "train").rename(folder / "val")
    (folder / "val_labels").rename(folder / "val_labels_before")
    (folder / "train_labels").rename(folder / "val_labels")
    as_val = fastuda.evaluate(model, folder, display=False)
    assert others.to_json() == as_val.to_json()


def test_the_command_scores_the_same_images(folder: Path, model_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    globs = ("--images", OTHERS[0], "--labels", OTHERS[1])
    code, output = command("eval", model_file, "--target", folder, *globs, "--device", "cpu", "--json", out)
    assert code == 0, output
    assert "Evaluating: 3" in output
    model = fastuda.load(model_file, device="cpu")
    by_python = fastuda.evaluate(model, folder, images=OTHERS[0], labels=OTHERS[1], display=False)
    assert json.loads(out.read_text())["full"]["miou"] == pytest.approx(by_python.miou, abs=1e-4)
    assert by_python.data != fastuda.evaluate(model, folder, display=False).data


@pytest.mark.parametrize("given", [{"images": OTHERS[0]}, {"labels": OTHERS[1]}])
def test_images_without_labels_are_refused(given: dict[str, str], folder: Path, model_file: Path) -> None:
    model = fastuda.load(model_file, device="cpu")
    with pytest.raises(UsageError, match=r"images and labels go together, a glob for each \(--images, --labels\)"):
        fastuda.evaluate(model, folder, **given, display=False)  # type: ignore[arg-type]


def test_a_known_layout_has_no_globs(trained: fastuda.Model, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^train.* a folder data set alone, and this one is cityscapes"):
        fastuda.evaluate(trained, tmp_path, images=OTHERS[0], labels=OTHERS[1], display=False)


def test_a_glob_that_finds_nothing_is_named(folder: Path, model_file: Path) -> None:
    model = fastuda.load(model_file, device="cpu")
    with pytest.raises(fastuda.FastudaError, match=r"no file matches `val_images` = 'gone/\*\.png'"):
        fastuda.evaluate(model, folder, images="gone/*.png", labels=OTHERS[1], display=False)


def test_a_broken_image_among_them_is_found_by_the_check_that_the_error_names(folder: Path, model_file: Path) -> None:
    (folder / "train/1.png").write_bytes(b"no picture")
    model = fastuda.load(model_file, device="cpu")

    def evaluated() -> fastuda.EvaluationResult:
        return fastuda.evaluate(model, folder, images=OTHERS[0], labels=OTHERS[1], display=False)

    with pytest.raises(fastuda.FastudaError) as error:
        evaluated()
    recipe = folder / "own.toml"
    recipe.write_text(dump_recipe(model.recipe))
    _, *words = shlex.split(str(error.value).split("`")[1])
    _, output = command(*(str(recipe) if word == "RECIPE" else word for word in words))
    assert "1.png" in output
    assert sum(evaluated().left_out.to_json().values()) == 1
