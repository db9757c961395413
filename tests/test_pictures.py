"""Pictures for people: overlays, grids, and files that are whole or absent."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastuda.classes import ClassSet
from fastuda.data.datasets import Datasets
from fastuda.data.packing.pack import Packed
from fastuda.errors import FastudaError
from fastuda.evaluation.comparison import comparison_grid
from fastuda.model.deeplab.network import DeepLabV2
from fastuda.model.passes import Passes
from fastuda.recipe import Recipe
from fastuda.report.pictures import grid, overlay, save_picture
from fastuda.runs.checkpoint import save_model
from fastuda.training.contact_sheet import contact_sheet

CLASSES = ClassSet.of(("a", "b"), ((200, 0, 0), (0, 100, 0)))
CELL, MARGIN, TITLE = 480, 6, 22


def test_an_overlay_blends_the_classes_colours_over_the_image() -> None:
    image = np.full((1, 3, 3), 100, np.uint8)
    found = overlay(image, np.array([[0, 1, 255]], np.uint8), CLASSES, strength=0.5)
    assert found.dtype == np.uint8
    assert found.tolist() == [[[150, 50, 50], [50, 100, 50], [100, 100, 100]]]


def test_ignored_pixels_stay_as_they_are_even_under_full_colours() -> None:
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    before = image.copy()
    label = np.full((4, 5), 255, np.uint8)
    label[0, 0] = 1
    found = overlay(image, label, CLASSES, strength=1)
    assert found[0, 0].tolist() == [0, 100, 0]
    found[0, 0] = before[0, 0]
    assert np.array_equal(found, before)
    assert np.array_equal(image, before)


def test_a_grid_has_a_cell_for_every_image_under_its_columns_title() -> None:
    colours = [[(255, 0, 0), (0, 255, 0), (0, 0, 255)], [(9, 9, 9), (99, 99, 99), (199, 199, 199)]]
    rows = [[np.full((20, 40, 3), colour, np.uint8) for colour in row] for row in colours]
    sheet = grid(["one", "two", "three"], rows)
    height = CELL // 2
    assert sheet.size == (3 * (CELL + MARGIN) + MARGIN, TITLE + 2 * (height + MARGIN) + MARGIN)
    for j, row in enumerate(colours):
        for i, colour in enumerate(row):
            middle = (MARGIN + i * (CELL + MARGIN) + CELL // 2, TITLE + j * (height + MARGIN) + height // 2)
            assert sheet.getpixel(middle) == colour
    titles = np.asarray(sheet)[:TITLE].min(-1).min(0)
    for i in range(3):
        assert titles[MARGIN + i * (CELL + MARGIN) :][:CELL].min() < 128


def test_images_of_different_heights_do_not_overlap() -> None:
    flat, tall = np.full((10, 40, 3), 50, np.uint8), np.full((40, 40, 3), 80, np.uint8)
    sheet = grid(["one"], [[flat], [tall]])
    assert sheet.height == TITLE + 2 * (CELL + MARGIN) + MARGIN
    assert (np.asarray(sheet)[:, MARGIN + 5] == 50).all(-1).sum() == CELL // 4
    assert (np.asarray(sheet)[:, MARGIN + 5] == 80).all(-1).sum() == CELL


def test_a_legend_shows_every_class_in_its_colour() -> None:
    names = tuple(f"class {i}" for i in range(19))
    classes = ClassSet.of(names)
    cells = [[np.zeros((10, 10, 3), np.uint8)] * 2]
    plain, sheet = grid(["one", "two"], cells), grid(["one", "two"], cells, classes)
    assert sheet.width == plain.width
    legend = np.asarray(sheet)[plain.height :]
    for colour in classes.palette:
        assert (legend == colour).all(-1).sum() >= 100


def test_a_saved_picture_is_whole_and_alone(tmp_path: Path) -> None:
    save_picture(tmp_path / "x.png", Image.new("RGB", (3, 2), "red"))
    assert np.asarray(Image.open(tmp_path / "x.png")).tolist() == [[[255, 0, 0]] * 3] * 2
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


def test_a_picture_that_cannot_be_saved_leaves_the_old_one_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_picture(tmp_path / "x.png", Image.new("RGB", (3, 2), "red"))
    before = (tmp_path / "x.png").read_bytes()

    def full(written: Path, _: Path) -> None:
        assert written.stat().st_size > 0
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(FastudaError, match=r"x\.png: no space left on the disk"):
        save_picture(tmp_path / "x.png", Image.new("RGB", (3, 2), "blue"))
    assert (tmp_path / "x.png").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


def test_a_picture_for_a_folder_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FastudaError, match=r"none/x\.png: cannot be written"):
        save_picture(tmp_path / "none" / "x.png", Image.new("RGB", (3, 2)))


@pytest.fixture
def evaluation(pack: Callable[..., Packed], tiny_recipe: Callable[..., Recipe]) -> Packed:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (32, 64, 3), np.uint8) for _ in range(5)]
    labels = [np.full((32, 64), i, np.uint8) for i in range(5)]
    return pack(tiny_recipe(), images, labels, size=(64, 32), own_label_size=True)


def always(class_number: int, recipe: Recipe) -> DeepLabV2:
    """A network that answers the same class everywhere."""
    model = DeepLabV2(19, depth=18, width=recipe.model.width)
    for branch in model.head.branches:
        torch.nn.init.zeros_(branch.weight)  # type: ignore[arg-type]
        branch.bias.data[class_number] = 1  # type: ignore[union-attr, operator]
    return model


def test_models_are_compared_image_by_image(
    evaluation: Packed, tiny_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = tiny_recipe("eval.pictures=2")
    models = []
    for title, number in (("source_only", 10), ("adapted", 13)):
        save_model(tmp_path / title, always(number, recipe), recipe, {})
        models.append((title, tmp_path / title))
    cpu = torch.device("cpu")
    comparison_grid(tmp_path / "grid.png", models, evaluation, recipe, Passes.of(recipe, cpu), cpu)
    sheet = Image.open(tmp_path / "grid.png")
    palette = recipe.classes.build().palette
    assert sheet.width == 4 * (CELL + MARGIN) + MARGIN
    for row, label in enumerate((0, 2)):  # two of five, spread evenly
        y = TITLE + row * (CELL // 2 + MARGIN) + CELL // 4
        found = [sheet.getpixel((MARGIN + column * (CELL + MARGIN) + CELL // 2, y)) for column in (1, 2, 3)]
        assert found == [palette[label], palette[10], palette[13]]


def test_no_pictures_asked_for_no_picture_made(
    evaluation: Packed, tiny_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = tiny_recipe("eval.pictures=0")
    cpu = torch.device("cpu")
    comparison_grid(tmp_path / "grid.png", [], evaluation, recipe, Passes.of(recipe, cpu), cpu)
    assert not (tmp_path / "grid.png").exists()


def test_a_contact_sheet_has_a_row_an_image_and_knows_no_pseudo_label_without_a_model(
    pack: Callable[..., Packed], tiny_recipe: Callable[..., Recipe]
) -> None:
    recipe = tiny_recipe("views.source_size=[64, 32]", "views.target_size=[64, 32]", "views.crop_size=[32, 32]")
    red, blue = np.zeros((32, 64, 3), np.uint8), np.zeros((32, 64, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    source = pack(recipe, [red] * 2, [np.zeros((32, 64), np.uint8)] * 2)
    target = pack(recipe, [blue] * 2)
    sheet = np.asarray(contact_sheet(recipe, Datasets(source, target, target), None))
    assert sheet.shape[1] == 11 * (CELL + MARGIN) + MARGIN

    def cell(column: int, row: int) -> list[list[int]]:
        """The colours in a cell, every eighth pixel looked at."""
        left, top = MARGIN + column * (CELL + MARGIN), TITLE + row * (CELL + MARGIN)
        pixels = sheet[top : top + CELL : 8, left : left + CELL : 8].reshape(-1, 3)
        return np.unique(pixels, axis=0).tolist()

    for row in range(2):
        assert cell(0, row) == [[255, 0, 0]]
        # Of one class present, half is one: all of the source is pasted.
        assert cell(3, row) == cell(4, row) == [[0, 0, 255]]
        assert cell(6, row) == [[255, 0, 0]]
        # Nothing is confident, so HTCM pastes nothing.
        assert cell(9, row) == cell(2, row)
