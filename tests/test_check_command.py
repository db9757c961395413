"""The command that a message tells the user to type checks the very files that were read, and leaves them out."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fastuda.data.packing.prepare import LabelSize, prepare
from fastuda.data.reading.samples import Split
from fastuda.errors import FastudaError
from fastuda.recipe import Domain, Recipe
from fastuda.recipe.file import load_recipe
from fastuda.report.doctor import examine
from fastuda_cli.main import app

FOLDER = """
[source]
layout = "folder"
images = "train/*.jpg"
labels = "train/*.png"
[target]
layout = "folder"
images = "new/*.jpg"
val_images = "seen/*.jpg"
val_labels = "seen/*.png"
"""
CITY = ("leftImg8bit/{}/ulm/{}_leftImg8bit.png", "gtFine/{}/ulm/{}_gtFine_labelIds.png")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FASTUDA_CACHE", str(tmp_path / "usual cache"))
    monkeypatch.setenv("COLUMNS", "1000")
    return tmp_path / "my data"


def write(path: Path, *, label: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(7, 9, (16, 24, 1 if label else 3), np.uint8)
    Image.fromarray(pixels[..., 0] if label else pixels).save(path)


def pairs(root: Path, image: str, label: str | None, broken: str) -> Path:
    """Twenty-five pairs, of which a file of the last is `broken`; that file."""
    for i in range(25):
        write(root / image.format(i))
        if label is not None:
            write(root / label.format(i), label=True)
    (root / broken).write_bytes((root / broken).read_bytes()[:-30])
    return root / broken


def packed(recipe: Recipe, domain: Domain, split: Split, labels: LabelSize) -> int:
    classes = recipe.classes.build()
    return len(prepare(domain, split, size=(12, 8), labels=labels, classes=classes, data=recipe.data, workers=1))


def told(message: str) -> list[str]:
    """The arguments of the command in a message."""
    (command,) = re.findall(r"`fastuda (data check .*?)`", message)
    return shlex.split(command)


def follow(recipe: Recipe, domain: Domain, split: Split, labels: LabelSize, broken: Path, name: str = "") -> list[str]:
    """Pack, do as the error says, and pack again without the faulty sample; the command's options."""
    with pytest.raises(FastudaError) as error:
        packed(recipe, domain, split, labels)
    command = told(str(error.value))
    result = CliRunner().invoke(app, [name if word == "RECIPE" else word for word in command])
    assert (result.exit_code, broken.name in result.output) == (1, True), result.output
    assert packed(recipe, domain, split, labels) == 24
    assert ("RECIPE: this run's" in str(error.value)) == ("RECIPE" in command)
    return command[4:]


def test_source_labels(root: Path) -> None:
    recipe = load_recipe("gta2cs", [f"source.root={root}"])
    broken = pairs(root, "images/{}.png", "labels/{}.png", "labels/24.png")
    assert follow(recipe, recipe.source, "train", "resized", broken) == ["--labels"]


def test_target_images(root: Path) -> None:
    recipe = load_recipe("gta2cs", [f"target.root={root}"])
    broken = pairs(root, CITY[0].format("train", "{}"), None, CITY[0].format("train", 24))
    assert follow(recipe, recipe.target, "train", "none", broken) == ["--no-labels"]


def test_the_evaluation_split(root: Path) -> None:
    recipe = load_recipe("gta2cs", [f"target.root={root}"])
    image, label = (place.format("val", "{}") for place in CITY)
    broken = pairs(root, image, label, label.format(24))
    assert follow(recipe, recipe.target, "val", "own", broken) == ["--split", "val", "--labels"]


def test_a_source_with_splits_classes_and_a_cache_of_another_kind(root: Path) -> None:
    settings = ["source.layout=cityscapes", "source.split=extra", f"source.root={root}"]
    recipe = load_recipe("syn2cs", [*settings, f"data.cache={root.parent / 'own cache'}"])
    image, label = (place.format("extra", "{}") for place in CITY)
    broken = pairs(root, image, label, label.format(24))
    Image.fromarray(np.full((16, 24), 77, np.uint8)).save(broken)  # whether it has a class is the class list's to say
    options = follow(recipe, recipe.source, "train", "resized", broken)
    assert options[:2] == ["--domain", "source"]
    assert not (root.parent / "usual cache").exists()


def test_globs_are_the_recipes(root: Path) -> None:
    root.parent.joinpath("mine.toml").write_text('base = "gta2cs"\n' + FOLDER)
    name = str(root.parent / "mine.toml")
    recipe = load_recipe(name, [f"source.root={root}", f"target.root={root}"])
    broken = pairs(root, "seen/{}.jpg", "seen/{}.png", "seen/24.png")
    options = follow(recipe, recipe.target, "val", "own", broken, name)
    globs = ["--set", 'target.val_images="seen/*.jpg"', "--set", 'target.val_labels="seen/*.png"']
    assert options == ["--recipe", "RECIPE", "--domain", "target", *globs, "--split", "val", "--labels"]
    broken = pairs(root, "train/{}.jpg", "train/{}.png", "train/24.png")
    options = follow(recipe, recipe.source, "train", "resized", broken, name)
    assert options == ["--recipe", "RECIPE", "--domain", "source", "--labels"]


@pytest.mark.parametrize(
    "classes", ['names = ["road", "sidewalk"]', 'preset = "cityscapes13"\nmerged = { road = ["terrain"] }']
)
def test_class_lists_of_ones_own_are_the_recipes(root: Path, classes: str) -> None:
    name = str(root.parent / "mine.toml")
    Path(name).write_text(f'base = "gta2cs"\n[classes]\n{classes}\n')
    recipe = load_recipe(name, [f"source.root={root}"])
    broken = pairs(root, "images/{}.png", "labels/{}.png", "labels/24.png")
    options = follow(recipe, recipe.source, "train", "resized", broken, name)
    assert options == ["--recipe", "RECIPE", "--domain", "source", "--labels"]


def test_two_files_for_one_sample(root: Path) -> None:
    recipe = load_recipe("gta2cs", [f"target.root={root}"])
    image, label = (place.format("val", "{}") for place in CITY)
    pairs(root, image, label, label.format(24))
    write(root / label.format(24), label=True)
    twin = root / image.format(24).replace(".png", ".jpg")
    write(twin)
    options = follow(recipe, recipe.target, "val", "own", twin)
    assert options == ["--split", "val", "--labels"]


def test_doctor_names_the_split_that_lacks_files(root: Path) -> None:
    image, label = (place.format("val", "{}") for place in CITY)
    pairs(root, image, label, label.format(24))
    (root / label.format(24)).unlink()
    (finding,) = [one for one in examine([Domain(layout="cityscapes", root=root)]) if one.subject == "cityscapes val"]
    command = told(finding.advice)
    assert command[4:] == ["--split", "val", "--labels"]
    result = CliRunner().invoke(app, command)
    assert Path(image.format(24)).name in result.output
