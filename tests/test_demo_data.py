"""The drawn demo: layout on disk, exact repeatability, and all-or-nothing writing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastuda.classes import CITYSCAPES_19, CITYSCAPES_IDS, ClassSet
from fastuda.data.datasets import with_demo_data
from fastuda.demo import crew, draw_demo, furniture, people, vehicles
from fastuda.demo.canvas import Camera, Painter
from fastuda.demo.domains import SOURCE, TARGET
from fastuda.demo.scene import draw_scene
from fastuda.errors import FastudaError
from fastuda.recipe.file import load_recipe

SIZE = (128, 64)
COUNTS = {"num_source": 3, "num_source_val": 2, "num_target": 2, "num_val": 2}


def draw(root: Path, **settings: object) -> dict[str, bytes]:
    draw_demo(root, **({"size": SIZE, "workers": 1} | COUNTS | settings))  # type: ignore[arg-type]
    return contents(root)


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "drawn"
    draw(root)
    return root


def test_layout(demo: Path) -> None:
    source = {f"source/{kind}/0000{i}.png" for kind in ("images", "labels") for i in (1, 2, 3)}
    source_val = {f"source_val/{kind}/0000{i}.png" for kind in ("images", "labels") for i in (1, 2)}
    train = {f"target/leftImg8bit/train/demo/demo_00000{i}_leftImg8bit.png" for i in (0, 1)}
    val = {f"target/leftImg8bit/val/demo/demo_00000{i}_leftImg8bit.png" for i in (0, 1)}
    truth = {
        f"target/gtFine/{split}/demo/demo_00000{i}_gtFine_labelIds.png" for split in ("train", "val") for i in (0, 1)
    }
    assert set(contents(demo)) == source | source_val | train | val | truth | {"demo.json"}
    assert [p.name for p in demo.parent.iterdir()] == ["drawn"]


def test_images_and_labels_agree(demo: Path) -> None:
    pairs = [(p, demo / "source/labels" / p.name) for p in (demo / "source/images").iterdir()]
    for path in (demo / "target/leftImg8bit").rglob("*.png"):
        pairs.append(
            (path, Path(str(path).replace("/leftImg8bit/", "/gtFine/").replace("leftImg8bit", "gtFine_labelIds")))
        )
    assert len(pairs) == 7
    for image_path, label_path in pairs:
        with Image.open(image_path) as image, Image.open(label_path) as label:
            assert (image.mode, image.size, label.size) == ("RGB", SIZE, SIZE)
            assert label.mode == ("P" if "source" in label_path.parts else "L")
            assert set(np.unique(np.asarray(label)).tolist()) <= {0, *CITYSCAPES_IDS}


def test_source_labels_carry_the_cityscapes_palette(demo: Path) -> None:
    with Image.open(demo / "source/labels/00001.png") as label:
        ids, colours = np.asarray(label), np.asarray(label.convert("RGB"))
    classes = ClassSet.of(CITYSCAPES_19)
    for label_id in np.unique(ids).tolist():
        name = CITYSCAPES_IDS.get(label_id)
        expected = classes.palette[classes.names.index(name)] if name else (0, 0, 0)
        assert (colours[ids == label_id] == expected).all()


def test_same_bytes_for_a_seed_whatever_the_workers(demo: Path, tmp_path: Path) -> None:
    assert draw(tmp_path / "again", workers=2) == contents(demo)


def test_a_scene_does_not_depend_on_how_many_are_drawn(demo: Path, tmp_path: Path) -> None:
    fewer = draw(tmp_path / "fewer", num_source=1, num_source_val=0, num_target=1, num_val=0)
    fewer.pop("demo.json")
    assert len(fewer) == 4
    assert fewer.items() <= contents(demo).items()


def test_a_demo_may_be_empty(tmp_path: Path) -> None:
    assert list(draw(tmp_path / "none", num_source=0, num_source_val=0, num_target=0, num_val=0)) == ["demo.json"]


@pytest.mark.parametrize("size", [(32, 32), (33, 90), (1100, 600)])
def test_any_size(size: tuple[int, int]) -> None:
    image, label = draw_scene(np.random.default_rng(2), TARGET, size)
    assert image.shape == (size[1], size[0], 3)
    assert label.shape == (size[1], size[0])


def test_every_scene_and_seed_differs(demo: Path, tmp_path: Path) -> None:
    files = contents(demo)
    other = draw(tmp_path / "other", seed=1)
    images = [name for name in files if "labels" not in name and "gtFine" not in name]
    assert len({files[name] for name in images}) == len(images)
    assert not any(files[name] == other[name] for name in files)


@pytest.mark.parametrize("look", [SOURCE, TARGET], ids=["source", "target"])
def test_all_classes_occur_large_enough_to_learn(look: object) -> None:
    pixels = np.zeros(256, np.int64)
    for i in range(40):
        _, label = draw_scene(np.random.default_rng(i), look, (256, 128))  # type: ignore[arg-type]
        pixels += np.bincount(label.ravel(), minlength=256)
    share = {name: pixels[label_id] / pixels.sum() for label_id, name in CITYSCAPES_IDS.items()}
    assert min(share.values()) > 0.001, share
    assert pixels[0] > 0


@pytest.mark.parametrize("bend", [0.0, 0.0015])
def test_the_label_is_the_drawn_silhouette(bend: float) -> None:
    image = Image.new("RGBA", SIZE)
    rng = np.random.default_rng(0)
    camera = Camera(*SIZE, focal=SIZE[0], centre=64, horizon=30, eye=1.5, bend=bend)
    painter = Painter(image, camera, SOURCE.look, rng, air=(255, 255, 255), haze=0.01)
    vehicles.vehicle(painter, vehicles.SALOON, vehicles.Pose(-2.0, 12.0, 0.3))
    furniture.tree(painter, 3.0, 11.0, 6.0)
    people.person(painter, 0.5, 10.0)
    pixels = np.asarray(image)
    assert (pixels[..., :3].any(axis=-1) == (pixels[..., 3] > 0)).all()
    assert set(np.unique(pixels[..., 3]).tolist()) == {0, 21, 24, 26}
    tall = np.flatnonzero((pixels[..., 3] == 24).any(axis=1))
    assert 1.5 < len(tall) * 10 / SIZE[0] < 2.0, "a person is some 1.5 to 2 metres tall"


def test_a_finished_demo_is_left_alone(demo: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in demo.rglob("*")}
    draw(demo)
    assert {p: p.stat().st_mtime_ns for p in demo.rglob("*")} == before


def test_other_settings_are_refused(demo: Path) -> None:
    with pytest.raises(FastudaError, match=r"drawn with .*'seed': 0.* not .*'seed': 5"):
        draw(demo, seed=5)


def test_an_incomplete_demo_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "demo")
    (tmp_path / "demo/source/labels/00002.png").unlink()
    with pytest.raises(FastudaError, match=r"lacks 1 of its files.*labels/00002\.png"):
        draw(tmp_path / "demo")


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FastudaError, match="not a drawn demo"):
        draw(tmp_path)
    with pytest.raises(FastudaError, match="not a drawn demo"):
        draw(tmp_path / "thesis.txt")
    assert contents(tmp_path) == {"thesis.txt": b"mine"}


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "demo.json" in draw(tmp_path / "empty")


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_draw_leaves_nothing(tmp_path: Path, workers: int) -> None:
    def stop(done: int, total: int) -> None:
        assert total == 9
        if done >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path / "demo", progress=stop, workers=workers)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that drawing starts."""
    processes: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def noted(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        processes.append(start(*arguments, **options))  # type: ignore[call-overload]
        return processes[-1]

    monkeypatch.setattr(subprocess, "Popen", noted)
    return processes


def test_a_draw_is_left_while_its_workers_still_start(tmp_path: Path, started: list[subprocess.Popen[bytes]]) -> None:
    asked: list[float] = []

    def stop(done: int, total: int) -> None:
        asked.append(time.monotonic())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path / "demo", progress=stop, workers=2)
    assert time.monotonic() - asked[0] < 1.5  # seconds less than an interpreter takes to start
    assert [process.returncode for process in started] == [-9, -9]
    assert os.listdir(tmp_path) == []


def test_a_worker_that_is_killed_ends_the_draw_with_a_message(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    def kill(done: int, total: int) -> None:
        started[0].kill()

    with pytest.raises(FastudaError, match="ended by something else, for want of memory perhaps; run again"):
        draw(tmp_path / "demo", progress=kill, workers=2)
    assert os.listdir(tmp_path) == []


def test_a_worker_that_cannot_start_is_told_from_one_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "_START", "raise SystemExit(3)")
    with pytest.raises(FastudaError, match=r"a process that drew the demo ended with exit code 3; what it wrote to"):
        draw(tmp_path / "demo", workers=2)
    assert os.listdir(tmp_path) == []


def test_what_a_worker_cannot_write_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: None)  # so that no worker has a folder to write to
    with pytest.raises(FastudaError, match=r"the demo could not be written \(.*No such file.*\.png"):
        draw(tmp_path / "demo", workers=2)


def test_workers_do_not_run_the_callers_script(demo: Path, tmp_path: Path) -> None:
    script = tmp_path / "notebook.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom fastuda.demo import draw_demo\n"
        f"draw_demo(Path(sys.argv[1]), size={SIZE}, workers=2, **{COUNTS})\nprint('drawn')\n"
    )
    command = [sys.executable, str(script), str(tmp_path / "drawn")]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.stdout, found.stderr) == ("drawn\n", "")
    assert contents(tmp_path / "drawn") == contents(demo)


def test_progress_counts_every_image(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    draw(tmp_path / "demo", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 9) for i in range(1, 10)]
    assert json.loads((tmp_path / "demo/demo.json").read_text())["size"] == list(SIZE)


@pytest.mark.parametrize("settings", [{"num_val": -1}, {"seed": -1}, {"size": (16, 64)}, {"workers": 0}])
def test_settings_out_of_range_are_refused(tmp_path: Path, settings: dict[str, object]) -> None:
    with pytest.raises(FastudaError, match="at least 0"):
        draw(tmp_path / "demo", **settings)
    assert list(tmp_path.iterdir()) == []


def test_a_demo_whose_cache_was_deleted_is_drawn_again(tmp_path: Path) -> None:
    counts = [f"demo.{name}=1" for name in ("num_source", "num_source_val", "num_target", "num_val")]
    recipe = load_recipe("demo", [*counts, "demo.size=[64, 32]", f"data.cache={tmp_path / 'cache'}"])
    drawn = with_demo_data(recipe, no_progress)
    assert drawn.source.root is not None
    picture = drawn.source.root / "images" / "00001.png"
    pixels = picture.read_bytes()
    shutil.rmtree(tmp_path / "cache")
    assert with_demo_data(drawn, no_progress) == drawn
    assert picture.read_bytes() == pixels
    own = load_recipe(
        "demo", [f"source.root={tmp_path}", f"target.root={tmp_path}", f"data.cache={tmp_path / 'other'}"]
    )
    assert with_demo_data(own, no_progress) is own
    assert not (tmp_path / "other").exists()


def test_a_demo_of_another_version_is_left_and_this_ones_drawn_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = [f"demo.{name}=1" for name in ("num_source", "num_source_val", "num_target", "num_val")]
    recipe = load_recipe("demo", [*counts, "demo.size=[64, 32]", f"data.cache={tmp_path / 'cache'}"])
    monkeypatch.setattr("fastuda.demo.write.DRAWING", 1)
    monkeypatch.setattr("fastuda.data.datasets.DRAWING", 1)
    before = with_demo_data(recipe, no_progress)
    kept = contents(tmp_path / "cache")
    monkeypatch.undo()
    after = with_demo_data(recipe, no_progress)
    assert before.source.root != after.source.root
    assert kept.items() <= contents(tmp_path / "cache").items()
    assert with_demo_data(before, no_progress) is before, "a run of the earlier drawing goes on with it"


def test_a_demo_of_another_cache_is_drawn_where_it_cannot_be_reached(tmp_path: Path) -> None:
    counts = [f"demo.{name}=1" for name in ("num_source", "num_source_val", "num_target", "num_val")]
    recipe = load_recipe("demo", [*counts, "demo.size=[64, 32]", f"data.cache={tmp_path / 'theirs'}"])
    theirs = with_demo_data(recipe, no_progress)
    moved = theirs.model_copy(update={"data": recipe.data.model_copy(update={"cache": tmp_path / "mine"})})
    assert with_demo_data(moved, no_progress) is moved
    before = contents(tmp_path / "theirs")
    shutil.rmtree(tmp_path / "theirs")
    mine = with_demo_data(moved, no_progress)
    assert mine.source.root is not None
    assert mine.source.root.is_relative_to(tmp_path / "mine")
    drawn = contents(tmp_path / "mine")
    assert {name: drawn[name] for name in before} == before


def no_progress(_title: str) -> Callable[[int, int], None]:
    """Nobody is told."""
    return lambda done, total: None
