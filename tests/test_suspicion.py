"""What is no fault and yet a mistake is named: by `check` with its samples, by `train` before the first iteration."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fastuda.classes import ClassSet
from fastuda.data.checking.check import check
from fastuda.data.checking.report import CheckReport
from fastuda.data.datasets import prepare_all
from fastuda.errors import FastudaError
from fastuda.recipe import Domain
from fastuda.recipe.file import load_recipe

CLASSES = ClassSet.of(("road", "sky", "car", "person"))
Label = NDArray[np.uint8]


def areas(*values: int) -> Label:
    """A label 32×48 of vertical stripes."""
    return np.repeat(np.array(values, np.uint8), 48 // len(values))[None].repeat(32, 0)


def write(root: Path, *labels: Label) -> Domain:
    """Pairs in the `folder` layout."""
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True, exist_ok=True)
    for i, label in enumerate(labels):
        Image.fromarray(rng.integers(0, 256, (*label.shape, 3), np.uint8)).save(root / f"images/{i}.png")
        Image.fromarray(label).save(root / f"labels/{i}.png")
    return Domain(layout="folder", root=root, images="images/*.png", labels="labels/*.png")


def look(domain: Domain, classes: ClassSet = CLASSES) -> CheckReport:
    return check(domain, classes, "train", labelled=True)


def kinds(report: CheckReport) -> dict[str, list[str]]:
    return {suspicion.kind: suspicion.samples for suspicion in report.suspicions}


def test_sound_labels_are_not_suspicious(tmp_path: Path) -> None:
    assert kinds(look(write(tmp_path, areas(0, 1, 2), areas(1, 3, 255)))) == {}


def test_a_class_of_single_pixels_along_edges_is_named(tmp_path: Path) -> None:
    speckled = areas(0, 2, 0)
    speckled[:, 16] = 1  # between 0 and 2, as an interpolation makes it
    speckled[::2, 32] = 1
    report = look(write(tmp_path, areas(0, 2, 3), speckled))
    assert kinds(report) == {"specks": ["1"], "speckled": ["1"]}
    assert "sky occurs only as single pixels or lines of one pixel (48 pixels in 1 label" in report.suspicions[0].detail
    assert [suspect.name for suspect in report.suspects] == ["1"]


def test_labels_that_went_through_jpeg_or_a_smooth_resize_are_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    drawn = rng.integers(0, 4, (8, 12), np.uint8).repeat(4, 0).repeat(4, 1)
    smooth = np.asarray(Image.fromarray(drawn * 60).resize((96, 64), Image.Resampling.BILINEAR)) // 60
    buffer = io.BytesIO()
    Image.fromarray(drawn).save(buffer, "jpeg", quality=90)
    jpeg = np.minimum(np.asarray(Image.open(buffer)), 3)
    noisy = np.where(rng.random(drawn.shape) < 0.04, rng.integers(0, 4, drawn.shape, np.uint8), drawn)
    for i, label in enumerate((smooth, jpeg, noisy)):
        report = look(write(tmp_path / str(i), drawn, label))
        assert kinds(report)["speckled"] == ["1"], (i, report.suspicions)


@pytest.mark.parametrize("format", ["jpeg", "webp", "jpeg2000", "mpo"])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_lossy_label_is_refused_by_what_the_file_is(tmp_path: Path, format: str, suffix: str) -> None:
    domain = write(tmp_path, areas(0, 1, 2), areas(0, 1, 2))
    (tmp_path / "labels/1.png").unlink()
    Image.fromarray(areas(0, 1, 2)).convert("RGB" if format == "webp" else "L").save(
        tmp_path / f"labels/1.{suffix}", format
    )
    domain = domain.model_copy(update={"labels": "labels/*"})
    (problem,) = look(domain).problems
    assert problem.kind == "lossy"
    assert problem.file.endswith(f"labels/1.{suffix}")


@pytest.mark.parametrize("format", ["bmp", "tiff", "png"])
def test_other_lossless_formats_are_read(tmp_path: Path, format: str) -> None:
    domain = write(tmp_path, areas(0, 1, 2), areas(0, 1, 3))
    (tmp_path / "labels/1.png").unlink()
    Image.fromarray(areas(0, 1, 3)).save(tmp_path / f"labels/1.{format}", format)
    report = look(domain.model_copy(update={"labels": "labels/*"}))
    assert not report.problems
    assert all(report.pixels.values())


def test_a_mask_of_0_and_255_is_named_unless_the_table_says_what_255_is(tmp_path: Path) -> None:
    domain = write(tmp_path, areas(0, 255), areas(255, 0), areas(0, 255, 0))
    two = ClassSet.of(("other", "road"))
    report = look(domain, two)
    assert kinds(report)["255 foreground"] == ["0", "1", "2"]
    assert '255 = "road"' in next(s.detail for s in report.suspicions if s.kind == "255 foreground")
    said = domain.model_copy(update={"ids": {0: "other", 255: "road"}})
    assert kinds(look(said, two)) == {}
    ignored = domain.model_copy(update={"ids": {0: "other", 255: "ignore"}})
    assert "255 foreground" not in kinds(look(ignored, two))
    silent = domain.model_copy(update={"ids": {0: "other", 1: "road"}})
    assert {problem.kind for problem in look(silent, two).problems} == {"value"}


def test_labels_all_ignored_and_classes_that_never_occur_are_named(tmp_path: Path) -> None:
    report = look(write(tmp_path, areas(0, 0), areas(255, 255)))
    assert kinds(report)["all ignored"] == ["1"]
    details = {suspicion.kind: suspicion.detail for suspicion in report.suspicions}
    assert details["one class"].startswith("road is the only class")
    assert "(3 of 4)" in details["classes missing"]
    assert details["class absent"] == "classes that never occur: sky, car, person"
    nothing = look(write(tmp_path / "nothing", areas(255, 255)))
    assert set(kinds(nothing)) == {"no labelled pixel", "all ignored"}


def test_photographs_turned_by_their_tag(tmp_path: Path) -> None:
    domain = write(tmp_path, areas(0, 1, 2), areas(0, 1, 2), areas(0, 1, 2), areas(0, 1, 3))
    for i, orientation in ((0, 6), (1, 3), (2, 8)):
        path = tmp_path / f"images/{i}.png"
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.open(path).convert("RGB").save(path, exif=exif)
    report = look(domain)
    assert {Path(p.file).name: p.kind for p in report.problems} == {"0.png": "turned", "2.png": "turned"}
    assert "turned upright as its EXIF tag says (orientation 6)" in report.problems[0].detail
    assert kinds(report)["turned"] == ["1"]
    turned = np.ascontiguousarray(np.rot90(areas(0, 1, 2), -1))
    Image.fromarray(turned).save(tmp_path / "labels/0.png")
    assert "0.png" not in {Path(p.file).name for p in look(domain).problems}


@pytest.fixture
def quick(tmp_path: Path) -> list[str]:
    settings = [f'{side}.images="images/*.png"' for side in ("source", "target")]
    settings += [f'{side}.layout="folder"' for side in ("source", "target")]
    settings += ['source.labels="labels/*.png"', 'target.val_images="images/*.png"', 'target.val_labels="labels/*.png"']
    settings += [f"data.cache={tmp_path / 'cache'}", f"classes.names={list(CLASSES.names)}"]
    return [*settings, "views.source_size=[48, 32]", "views.target_size=[48, 32]", "eval.size=[48, 32]"]


def prepared(quick: list[str], source: Path, target: Path, *more: str) -> None:
    recipe = load_recipe("gta2cs", [*quick, f"source.root={source}", f"target.root={target}", *more])
    prepare_all(recipe, lambda title: lambda done, total: None)


def test_training_says_what_makes_it_pointless_before_it_begins(
    tmp_path: Path, quick: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "s", areas(0, 255), areas(255, 0))
    write(tmp_path / "t", areas(0, 1, 2), areas(1, 2, 3))
    with caplog.at_level(logging.WARNING):
        prepared(quick, tmp_path / "s", tmp_path / "t")
    assert "source training labels: classes that never occur: sky, car, person" in caplog.text
    assert "source training labels: road is the only class that occurs" in caplog.text
    assert "source training labels: 2 of 2 labels hold 0 and 255 alone, and 255 is ignored here (50 %" in caplog.text
    assert "evaluation labels" not in caplog.text


@pytest.mark.parametrize("empty", ["source", "target"])
def test_labels_without_one_labelled_pixel_are_refused(tmp_path: Path, quick: list[str], empty: str) -> None:
    for side in ("source", "target"):
        write(tmp_path / side, areas(255, 255) if side == empty else areas(0, 1, 2, 3))
    said = "source training" if empty == "source" else "evaluation"
    with pytest.raises(FastudaError, match=rf"{empty}: no pixel of the {said} labels has a class of the recipe"):
        prepared(quick, tmp_path / "source", tmp_path / "target")
