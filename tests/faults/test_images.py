"""Images and labels of strangers: each is read, or refused on one line, and none ends a check or a prediction."""

from __future__ import annotations

import json
import os
import random
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faults.image_file import Mutant, jpeg_with, label, photograph, png
from faults.images import KINDS, data_set, mutated
from faults.jpeg_mutants import ORIENTATIONS, exif_orientation
from faults.reading import TINY
from PIL import Image
from typer.testing import CliRunner, Result

from fastuda.data.checking.check import check
from fastuda.data.reading.faults import SampleError
from fastuda.data.reading.images import read_colour, read_file
from fastuda.data.reading.labels import read_label
from fastuda.data.reading.photograph import read_photograph
from fastuda.evaluation.predict import find_images
from fastuda.model.build import build_network
from fastuda.printable import on_one_line
from fastuda.recipe import Recipe
from fastuda.recipe.file import load_recipe
from fastuda.runs.checkpoint import save_model
from fastuda_cli.main import app

# Pillow warns of some damage and goes on, as it does for users.
pytestmark = [pytest.mark.filterwarnings("ignore:::PIL"), pytest.mark.usefixtures("no_hang")]
SEEDS = range(4 * len(KINDS))
SECONDS = 5


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    recipe = load_recipe("demo", [*TINY, "eval.size=[32, 16]"])
    torch.manual_seed(1)
    save_model(path, build_network(recipe), recipe, {})
    return path


def required_one_line(error: SampleError, path: Path) -> None:
    said = str(error)
    assert said.isprintable()
    assert len(said) < 2000
    assert on_one_line(path) in said


def outcome(read: Any, path: Path) -> Any:
    """What `read(path)` gives, or the kind of fault with which it refuses; whatever else it raises fails the test."""
    start = time.monotonic()
    try:
        found = read(path)
    except SampleError as error:
        required_one_line(error, path)
        found = error.kind
    assert time.monotonic() - start < SECONDS
    return found


def test_the_same_seed_makes_the_same_file(tmp_path: Path) -> None:
    def content(mutant: Mutant) -> object:
        path = mutant.path
        if path.is_symlink():
            return os.readlink(path)
        return path.read_bytes() if path.is_file() and path.stat().st_size < 1 << 30 else path.stat().st_mode

    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
    for seed in range(len(KINDS)):
        one, other = (mutated(seed, tmp_path / name) for name in ("a", "b"))
        assert (one.kind, one.path.name, one.is_label) == (other.kind, other.path.name, other.is_label)
        assert content(one) == content(other)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_read_or_refused_on_one_line(kind: str, tmp_path: Path) -> None:
    for seed in range(KINDS.index(kind), 5 * len(KINDS), len(KINDS)):
        mutant = mutated(seed, tmp_path)
        strict = outcome(lambda path: read_colour(read_file(path), path).size, mutant.path)
        assert outcome(lambda path: read_photograph(path).size, mutant.path) == strict
        for layout in ("folder", "synthia"):
            outcome(lambda path, layout=layout: read_label(path, layout).shape, mutant.path)
        if kind == "sound":
            assert strict == (24, 16)


def command(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert all(line.isprintable() for line in result.output.split("\n"))
    assert "Traceback" not in result.output
    assert "Warning" not in result.output
    return result


def test_bad_files_end_neither_a_check_nor_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTUDA_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    mutants = data_set(SEEDS, folder)
    report = tmp_path / "check.json"
    recipe = folder / "recipe.toml"
    result = command(
        "data", "check", "folder", folder, "--recipe", recipe, "--domain", "source", "--json", report,
        "--report", tmp_path / "check.html",
    )  # fmt: skip
    assert result.exit_code == 1
    found = json.loads(report.read_text())
    faulty = {problem["file"] for problem in found["problems"]}
    sure = (
        "empty",
        "pipe",
        "socket",
        "link to itself",
        "link to nothing",
        "PNG bomb",
        "terabyte",
        "PNG without pixels",
    )
    for mutant in mutants:
        if mutant.kind in sure:
            assert str(mutant.path) in faulty, mutant
        if mutant.kind == "sound":
            assert str(mutant.path) not in faulty
    assert all(len(problem["detail"]) < 2000 for problem in found["problems"])
    assert not [file for file in faulty if Path(file).stem.startswith("sound")]


@pytest.mark.parametrize("tiled", [False, True])
def test_bad_files_do_not_end_a_prediction(tiled: bool, weights: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "set", tmp_path / "out"
    mutants = data_set(SEEDS[: 2 * len(KINDS)], folder)
    options = ["--tiled"] if tiled else []
    result = command("predict", weights, folder / "images", "--out", out, "--device", "cpu", *options)
    assert result.exit_code == 1
    assert "could not be read and were left out" in result.output
    for mutant in mutants:
        if mutant.kind == "sound" and not mutant.is_label:
            assert (out / f"{mutant.path.stem}_labelIds.png").exists()
        if mutant.kind in ("pipe", "socket", "empty") and not mutant.is_label:
            assert on_one_line(mutant.path) in result.output
    again = command("predict", weights, folder / "images", "--out", out, "--device", "cpu", *options)
    assert again.exit_code == 1


def pair(folder: Path, name: str = "bad.png") -> Path:
    """A data set of two sound pairs and the label of a third, whose image is still to be made."""
    data_set([], folder)
    label(random.Random(1)).save(folder / "labels" / f"{Path(name).stem}.png")
    return folder / "images" / name


def faults(folder: Path) -> list[tuple[str, str]]:
    recipe: Recipe = load_recipe(str(folder / "recipe.toml"))
    domain = recipe.source.model_copy(update={"root": folder})
    report = check(domain, recipe.classes.build(), "train", labelled=True, workers=1)
    assert report.num_samples >= 2
    return [(problem.kind, problem.file) for problem in report.problems]


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_an_odd_exif_orientation_turns_nothing(name: str, tmp_path: Path) -> None:
    path = pair(tmp_path / "set", "bad.jpg")
    image = photograph(random.Random(2))
    image.save(path, quality=95)
    plain = np.asarray(Image.open(path))
    path.write_bytes(jpeg_with(path.read_bytes(), exif_orientation(name)))
    turned = {"turned": Image.Transpose.ROTATE_270, "mirrored": Image.Transpose.TRANSPOSE}.get(name)
    wanted = plain if turned is None else np.asarray(Image.fromarray(plain).transpose(turned))
    if name in ("floating", "two"):  # numbers that some readers take for 6
        assert {read_colour(read_file(path), path).size} <= {(24, 16), (16, 24)}
    else:
        np.testing.assert_array_equal(np.asarray(read_colour(read_file(path), path)), wanted)
        assert faults(tmp_path / "set") == (
            [] if turned is None else [("turned", str(tmp_path / "set/labels/bad.png"))]
        )
    assert read_photograph(path).size == read_colour(read_file(path), path).size


@pytest.mark.parametrize(
    "raw", [b"stra\xdfe.png", b"\xff\xfe.png", b"a\nb.png", b"\x1b[2J.png", "\u202ex.png".encode()]
)
def test_an_odd_name_is_a_name(raw: bytes, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTUDA_CACHE", str(tmp_path / "cache"))
    path = pair(tmp_path / "set", os.fsdecode(raw))
    photograph(random.Random(2)).save(path, "PNG")
    assert faults(tmp_path / "set") == []
    path.write_bytes(b"")
    assert faults(tmp_path / "set") == [("empty", str(path))]
    recipe = tmp_path / "set/recipe.toml"
    result = command("data", "check", "folder", tmp_path / "set", "--recipe", recipe, "--domain", "source")
    assert result.exit_code == 1
    told = command("predict", weights, tmp_path / "set/images", "--out", tmp_path / "out", "--device", "cpu")
    assert f"{on_one_line(path)}: the file is empty" in told.output


SPECIAL = ("pipe", "socket", "loop", "nothing", "device", "link to a pipe", "terabyte")


@pytest.mark.parametrize("what", SPECIAL)
def test_what_is_no_file_is_one_fault_and_makes_nobody_wait(what: str, weights: Path, tmp_path: Path) -> None:
    path = pair(tmp_path / "set")
    if what == "pipe":
        os.mkfifo(path)
    elif what == "socket":
        os.mknod(path, 0o140600)
    elif what == "terabyte":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    elif what == "link to a pipe":
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to(tmp_path / "pipe")
    else:
        path.symlink_to({"loop": path.name, "nothing": "not-there", "device": "/dev/zero"}[what])
    assert faults(tmp_path / "set") == [("too large" if what == "terabyte" else "undecodable", str(path))]
    told = command("predict", weights, tmp_path / "set/images", "--out", tmp_path / "out", "--device", "cpu")
    assert told.exit_code == 1
    assert told.output.count("cannot be read") == 1
    assert "1 of 3 images could not be read" in told.output


@pytest.mark.parametrize("place", ["images", "labels", "images/city"])
def test_a_folder_under_an_images_name_is_no_image(place: str, tmp_path: Path) -> None:
    data_set([], tmp_path / "set")
    (tmp_path / "set" / place / "folder.png").mkdir(parents=True)
    assert faults(tmp_path / "set") == []


@pytest.mark.parametrize("length", [222, 240, 251])
def test_a_name_too_long_for_its_prediction_is_that_images_fault(length: int, weights: Path, tmp_path: Path) -> None:
    path = pair(tmp_path / "set", "x" * length + ".png")
    photograph(random.Random(2)).save(path)
    (tmp_path / "out").mkdir()
    told = command("predict", weights, tmp_path / "set/images", "--out", tmp_path / "out", "--device", "cpu")
    assert told.exit_code == 1
    assert "too long for NAME_overlay.png and NAME_labelIds.png; rename it" in told.output
    assert (tmp_path / "out/sound0_labelIds.png").exists()


@pytest.mark.parametrize("content", ["pipe", "deep", "binary", "list"])
def test_a_stranger_s_classes_table_is_no_own_one(content: str, weights: Path, tmp_path: Path) -> None:
    data_set([], tmp_path / "set")
    table = tmp_path / "out/classes.json"
    table.parent.mkdir()
    if content == "pipe":
        os.mkfifo(table)
    else:
        table.write_bytes({"deep": b"[" * 10**5, "binary": b"\xff\0", "list": b"[]"}[content])
    told = command("predict", weights, tmp_path / "set/images", "--out", table.parent, "--device", "cpu")
    assert told.exit_code == 1
    assert "would be overwritten" in told.output


def test_a_transparent_palette_is_read_without_a_warning(tmp_path: Path) -> None:
    image = label(random.Random(3)).convert("P")
    image.putpalette(bytes(range(256)) * 3)
    path = tmp_path / "a.png"
    image.save(path, transparency=bytes(9))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warnings, "warn", lambda *a, **k: pytest.fail(f"{a}"))
        size = read_colour(read_file(path), path).size
        assert read_photograph(path).piece((0, 0, *size)).size == size
    np.testing.assert_array_equal(read_label(path, "folder"), np.asarray(image))


@pytest.mark.parametrize(
    ("side", "kind"), [((100_000, 100_000), "too large"), ((0, 9), "undecodable"), ((2**31 - 1, 1), "too large")]
)
def test_a_header_without_pixels_behind_it_takes_no_memory(side: tuple[int, int], kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(side))
    for read in (
        lambda: read_colour(read_file(path), path),
        lambda: read_photograph(path),
        lambda: read_label(path, "folder"),
    ):
        with pytest.raises(SampleError) as caught:
            read()
        assert caught.value.kind == kind


def test_a_folder_s_name_is_on_one_line_too(tmp_path: Path) -> None:
    folder = tmp_path / "a\n\x1b[2J"
    folder.mkdir()
    with pytest.raises(Exception, match=r"a\\n\\x1b\[2J: no images in this folder") as caught:
        find_images([folder])
    assert str(caught.value).isprintable()
