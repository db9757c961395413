"""Predictions on a user's own images."""

from __future__ import annotations

import json
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from typer.testing import CliRunner

import fastuda
from fastuda.classes import ClassSet, Values
from fastuda.errors import FastudaError, UsageError
from fastuda.evaluation.label_files import write_class_values, write_label
from fastuda.evaluation.model import Model
from fastuda.evaluation.predict import Input, find_images, predict
from fastuda.model.inference import evaluation_logits
from fastuda_cli.main import app

LABEL_IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
SIZE = (75, 43)


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 8, 3), np.uint8)
    Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC).save(path)
    return path


def test_images_are_found_below_a_folder_under_their_own_folders_names(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "b/1.jpg", "a/3.jpeg", "4.png"):
        picture(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    (tmp_path / "in" / "._4.png").write_bytes(b"what macOS leaves on foreign disks")
    assert find_images([tmp_path / "in"]) == [
        Input(tmp_path / "in/4.png", "4"),
        Input(tmp_path / "in/a/3.jpeg", "a/3"),
        Input(tmp_path / "in/b/1.jpg", "b/1"),
        Input(tmp_path / "in/b/2.PNG", "b/2"),
    ]


def test_files_and_folders_can_be_mixed_in_the_order_given(tmp_path: Path) -> None:
    one, two = picture(tmp_path / "x/one.png"), picture(tmp_path / "y/two.v2.png")
    assert find_images([two, tmp_path / "x"]) == [Input(two, "two.v2"), Input(one, "one")]


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FastudaError, match=r"none\.png: no such image or folder"):
        find_images([tmp_path / "none.png"])


def test_a_folder_without_images_is_named_with_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(FastudaError, match=rf"{tmp_path.name}: no images in this folder"):
        find_images([tmp_path])


@pytest.mark.parametrize("names", [("a/1.png", "b/1.png"), ("a/1.png", "a/1.jpg")])
def test_images_that_would_overwrite_each_others_predictions_are_refused(
    names: tuple[str, str], tmp_path: Path
) -> None:
    paths = [picture(tmp_path / name) for name in names]
    with pytest.raises(FastudaError, match=r"1\.\w+ and .*1\.\w+ would both become 1"):
        find_images(paths)


def test_predictions_are_the_models_at_each_images_own_size(trained: Model, tmp_path: Path) -> None:
    path = picture(tmp_path / "in/street.png")
    predict(trained, find_images([path]), tmp_path / "out", lambda *_: None)

    small = np.asarray(Image.open(path).resize((64, 32), Image.Resampling.BICUBIC))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        logits = trained.network(((torch.from_numpy(small.copy()) / 255 - mean) / std).permute(2, 0, 1)[None]).logits
    expected = F.interpolate(logits, SIZE[::-1], mode="bilinear", align_corners=True)[0].argmax(0).numpy()
    assert len(np.unique(expected)) >= 3

    with Image.open(tmp_path / "out/street_labelIds.png") as file:
        assert (file.size, file.mode) == (SIZE, "L")
        assert (np.asarray(file) == np.array(LABEL_IDS)[expected]).mean() > 0.999
    with Image.open(tmp_path / "out/street_overlay.png") as file:
        assert (file.size, file.mode) == (SIZE, "RGB")
        colours = np.array(trained.recipe.classes.build().palette)[expected]
        blend = 0.45 * np.asarray(Image.open(path)) + 0.55 * colours
        assert (np.abs(np.asarray(file) - blend).max(-1) <= 1).mean() > 0.999


def test_predictions_lie_as_the_images_do_and_progress_is_told(trained: Model, tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png"):
        picture(tmp_path / "in" / name)
    seen: list[tuple[int, int]] = []
    predict(trained, find_images([tmp_path / "in"]), tmp_path / "out", lambda *args: seen.append(args))
    assert seen == [(1, 2), (2, 2)]
    assert {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.png")} == {
        f"{name}_{kind}.png" for name in ("a/1", "b/1") for kind in ("labelIds", "overlay")
    }


def broken(path: Path) -> Path:
    path.write_bytes(picture(path).read_bytes()[:200])
    return path


def deep_grey(path: Path) -> Path:
    Image.fromarray(np.zeros((4, 5), np.uint16)).save(path)
    return path


def no_image(path: Path) -> Path:
    path.write_text("no image")
    return path


def empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


@pytest.mark.parametrize("tiled", [False, True])
def test_images_that_cannot_be_read_are_named_and_the_others_predicted(
    trained: Model, tmp_path: Path, tiled: bool
) -> None:
    faulty = [
        make(tmp_path / f"{i}.png") for i, make in zip((0, 2, 3, 5), (broken, deep_grey, no_image, empty), strict=True)
    ]
    for i in (1, 4, 6):
        picture(tmp_path / f"{i}.png")
    seen: list[tuple[int, int]] = []
    out = tmp_path / "out"
    faults = predict(trained, find_images([tmp_path]), out, lambda *args: seen.append(args), tiled=tiled)
    assert [fault.path for fault in faults] == faulty
    assert [fault.kind for fault in faults] == ["truncated", "mode", "undecodable", "empty"]
    assert "0.png: ends too early" in str(faults[0])
    assert all(fault.__traceback__ is None and fault.__context__ is None for fault in faults)
    assert {path.name[0] for path in out.glob("*.png")} == {"1", "4", "6"}
    assert not list(out.glob(".*"))
    assert seen == [(i + 1, 7) for i in range(7)]


def test_the_command_names_what_it_could_not_read_counts_it_and_fails(weights: Path, tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    for name in ("a", "c"):
        picture(photos / f"{name}.png")
    command = ["predict", str(weights), str(photos), "--out", str(out), "--device", "cpu", "--tiled"]
    assert CliRunner().invoke(app, command).exit_code == 0
    broken(photos / "b.png")
    no_image(photos / "d.png")
    result = CliRunner().invoke(app, command, env={"COLUMNS": "300"})
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert len([line for line in lines if f"error: {photos / 'b.png'}: ends too early" in line]) == 1
    assert len([line for line in lines if f"error: {photos / 'd.png'}: is not an image" in line]) == 1
    assert f"2 images: {out}" in result.output
    assert lines[-1] == "error: 2 of 4 images could not be read and were left out"
    assert {path.name for path in out.glob("*_labelIds.png")} == {"a_labelIds.png", "c_labelIds.png"}


def pixels_of(path: Path) -> Any:
    with Image.open(path) as file:
        return np.asarray(file).copy()


@pytest.mark.parametrize("tag", range(2, 9))
@pytest.mark.parametrize("tiled", [False, True])
def test_a_turned_photograph_gets_the_prediction_of_the_same_one_stored_upright(
    trained: Model, tmp_path: Path, tag: int, tiled: bool
) -> None:
    stored = Image.open(picture(tmp_path / "stored.png"))
    exif = Image.Exif()
    exif[0x0112] = tag
    stored.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as file:
        upright = ImageOps.exif_transpose(file)
    upright.save(tmp_path / "upright.png", exif=Image.Exif())
    inputs = [Input(tmp_path / f"{name}.png", name) for name in ("turned", "upright")]
    assert predict(trained, inputs, tmp_path / "out", lambda *_: None, tiled=tiled) == []
    for kind in ("labelIds", "overlay"):
        found, expected = (pixels_of(tmp_path / f"out/{item.name}_{kind}.png") for item in inputs)
        assert found.shape[:2] == upright.size[::-1]
        assert np.array_equal(found, expected)


def with_settings(trained: Model, **changes: Any) -> Model:
    return replace(
        trained, recipe=trained.recipe.model_copy(update={"eval": trained.recipe.eval.model_copy(update=changes)})
    )


AUGMENTED = {"flip": True, "scales": (0.5, 1.0)}


@pytest.mark.parametrize("size", [(64, 32), (40, 32), (64, 7), (3, 2)])
@pytest.mark.parametrize("changes", [{}, AUGMENTED])
def test_an_image_no_larger_than_a_window_is_predicted_as_ever(
    trained: Model, tmp_path: Path, size: tuple[int, int], changes: dict[str, Any]
) -> None:
    Image.open(picture(tmp_path / "a.png")).resize(size).save(tmp_path / "a.png")
    trained = with_settings(trained, **changes)
    for tiled in (False, True):
        predict(trained, [Input(tmp_path / "a.png", f"{tiled}")], tmp_path / "out", lambda *_: None, tiled=tiled)
    for kind in ("labelIds", "overlay"):
        assert np.array_equal(*(pixels_of(tmp_path / f"out/{tiled}_{kind}.png") for tiled in (False, True)))


@pytest.mark.parametrize("size", [(200, 32), (200, 20), (30, 100), (150, 77), (65, 1)])
@pytest.mark.parametrize("changes", [{}, AUGMENTED])
def test_a_larger_image_is_predicted_in_windows_at_its_own_resolution(
    trained: Model, tmp_path: Path, size: tuple[int, int], changes: dict[str, Any]
) -> None:
    coarse = np.random.default_rng(3).integers(0, 256, (9, 20, 3), np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    image.save(tmp_path / "a.png")
    trained = with_settings(trained, **changes)
    for name in ("once", "again"):
        predict(trained, [Input(tmp_path / "a.png", name)], tmp_path / "out", lambda *_: None, "train-ids", tiled=True)
    found = pixels_of(tmp_path / "out/once_labelTrainIds.png")
    assert found.shape == size[::-1]
    assert np.array_equal(found, pixels_of(tmp_path / "out/again_labelTrainIds.png"))
    # The upper left window by itself: its own part is half the least overlap short of it on each inner side at most.
    window = min(size[0], 64), min(size[1], 32)
    batch = torch.from_numpy(np.asarray(image.crop((0, 0, *window))).copy())[None]
    logits = evaluation_logits(trained.network, batch, trained.recipe.eval, trained.passes).logits
    expected = F.interpolate(logits, window[::-1], mode="bilinear", align_corners=True)[0].argmax(0).numpy()
    width, height = (side if side == length else side // 2 for side, length in zip(window, size, strict=True))
    assert np.array_equal(found[:height, :width], expected[:height, :width])


def test_a_disk_that_refuses_the_overlay_leaves_neither_file(trained: Model, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(FastudaError, match=r"a_overlay\.png: cannot be written \(File too large\)"):
            predict(trained, [Input(tmp_path / "a.png", "a")], tmp_path / "out", lambda *_: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["classes.json"]


@pytest.mark.parametrize(
    ("names", "kind", "file", "values"),
    [
        (["water", "land"], "label-ids", "lake_labelIds.png", [0, 1]),
        (["road", "land"], "label-ids", "lake_labelIds.png", [7, 35]),
        (["land", "road"], "label-ids", "lake_labelIds.png", [35, 7]),
        (["road", "land"], "train-ids", "lake_labelTrainIds.png", [0, 1]),
    ],
)
def test_every_class_is_written_with_a_value_of_its_own_and_the_table_says_which(
    tmp_path: Path, names: list[str], kind: Values, file: str, values: list[int]
) -> None:
    classes = ClassSet.of(tuple(names))
    write_label(tmp_path, "lake", np.array([[0, 1], [1, 0]], np.uint8), classes, kind)
    assert np.asarray(Image.open(tmp_path / file)).tolist() == [values, values[::-1]]
    write_class_values(tmp_path, classes, kind)
    table = json.loads((tmp_path / "classes.json").read_text())
    assert (table["values"], table["files"]) == (kind, file.replace("lake", "*"))
    assert [(row["name"], row["value"], row["train_id"]) for row in table["classes"]] == [
        (name, value, i) for i, (name, value) in enumerate(zip(names, values, strict=True))
    ]


def test_values_of_another_name_are_refused_before_anything_is_written(trained: Model, tmp_path: Path) -> None:
    kind: Any = "label_ids"
    with pytest.raises(UsageError, match=r"values label_ids: label-ids or train-ids; did you mean label-ids\?"):
        predict(trained, [], tmp_path / "out", lambda done, total: None, kind)
    with pytest.raises(UsageError, match="values label_ids: "):
        fastuda.evaluate(tmp_path / "no model", save_predictions=tmp_path / "out", values=kind)
    for command in ("eval", "predict"):
        more = ["a.png", "--out", str(tmp_path / "out")] if command == "predict" else []
        result = CliRunner().invoke(app, [command, str(tmp_path), *more, "--values", "label_ids"])
        assert result.exit_code == 2
        assert "did you mean label-ids?" in result.stderr
    assert [*tmp_path.iterdir()] == [trained.file]


def test_pictures_below_linked_folders_are_found_and_a_link_back_up_ends(tmp_path: Path) -> None:
    for place in ("day1", "far/away"):
        (tmp_path / place).mkdir(parents=True)
        picture(tmp_path / place / "a.png")
    photos = tmp_path / "photos"
    (photos / ".thumbnails").mkdir(parents=True)
    picture(photos / ".thumbnails/a.png")
    (photos / "day1").symlink_to(tmp_path / "day1")
    (photos / "away").symlink_to("../far")
    (photos / "up").symlink_to("..")
    (tmp_path / "link").symlink_to(photos)
    (photos / "b.png").symlink_to(tmp_path / "day1/a.png")
    for folder in (photos, tmp_path / "link"):
        assert [item.name for item in find_images([folder])][:3] == ["away/away/a", "b", "day1/a"]
    assert "up/photos/b" not in {item.name for item in find_images([photos])}


def test_predicting_again_into_the_images_folder_leaves_its_own_files_alone(trained: Model, tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png").rename(tmp_path / "b_overlay.png")  # a photograph of that name
    for _ in range(2):
        inputs = find_images([tmp_path])
        assert [item.name for item in inputs] == ["a", "b_overlay"]
        predict(trained, inputs, tmp_path, lambda *_: None)


def test_predictions_below_the_images_are_no_images(trained: Model, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / "day").mkdir(parents=True)
    picture(photos / "a.png")
    picture(photos / "day/b.png")
    for _ in range(2):
        inputs = find_images([photos])
        assert [item.name for item in inputs] == ["a", "day/b"]
        predict(trained, inputs, photos / "predictions", lambda *_: None)


@pytest.mark.parametrize("file", ["a_labelIds.png", "a_overlay.png", "classes.json"])
def test_a_users_own_files_are_never_written_over(trained: Model, tmp_path: Path, file: str) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    picture(photos / "a.png")
    (photos / file).write_text("{}")
    with pytest.raises(FastudaError, match=rf"{file}: would be overwritten, and was not written by fastuda"):
        predict(trained, [Input(photos / "a.png", "a")], photos, lambda *_: None)
    assert (photos / file).read_text() == "{}"
    assert sorted(path.name for path in photos.iterdir()) == sorted(["a.png", file])


def test_pictures_of_any_kind_are_found_in_a_folder(tmp_path: Path) -> None:
    for suffix in ("png", "JPG", "webp", "bmp", "tif"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{suffix}.{suffix}")
    assert {item.name for item in find_images([tmp_path])} == {"png", "JPG", "webp", "bmp", "tif"}


def test_a_link_that_was_copied_as_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "day1").mkdir()
    picture(tmp_path / "day1/a.png")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/day1").write_text("../day1")
    with pytest.raises(FastudaError, match=r"photos/day1: a link to \.\./day1 that was copied as text"):
        find_images([tmp_path / "photos"])
