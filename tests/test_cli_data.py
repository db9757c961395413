"""`fastuda data demo` and `data check` as a user types them, and what training does about faults."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import fastuda, settings
from PIL import Image

pytestmark = pytest.mark.usefixtures("commands_cache")


def test_data_demo_draws_and_refuses_a_foreign_folder(tmp_path: Path) -> None:
    counts = [
        "--num-source",
        1,
        "--num-source-val",
        1,
        "--num-target",
        1,
        "--num-val",
        1,
        "--width",
        64,
        "--height",
        32,
    ]
    assert fastuda("data", "demo", tmp_path / "new", *counts)[0] == 0
    assert (tmp_path / "new/source/images/00001.png").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("precious")
    code, output = fastuda("data", "demo", tmp_path / "mine", *counts)
    assert code == 1
    assert "mine" in output
    assert (tmp_path / "mine/thesis.txt").read_text() == "precious"


@pytest.fixture
def faulty(drawn: Path, tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A GTA5 folder with one of each fault; file stem → the fault that `check` must name."""
    root = tmp_path / "faulty"
    shutil.copytree(drawn / "source", root)
    images, labels = root / "images", root / "labels"
    (labels / "00001.png").unlink()
    (images / "00002.png").write_bytes((images / "00002.png").read_bytes()[:400])
    (images / "00003.png").write_bytes(b"this is no image at all")
    (labels / "00004.png").write_bytes(b"")
    Image.open(labels / "00005.png").convert("RGB").save(labels / "00005.png")
    Image.open(labels / "00006.png").resize((60, 30)).save(labels / "00006.png")
    wrong = np.asarray(Image.open(labels / "00007.png")).copy()
    wrong[3, 4] = 200
    Image.fromarray(wrong).save(labels / "00007.png")
    train_ids = np.where(np.arange(64 * 32).reshape(32, 64) % 7 == 0, 255, np.arange(64) % 19).astype(np.uint8)
    Image.fromarray(train_ids).save(labels / "00008.png")
    faults = {
        "00001": "no label", "00002": "truncated", "00003": "undecodable", "00004": "empty", "00005": "mode",
        "00006": "size", "00007": "value", "00008": "train ids",
    }  # fmt: skip
    return root, faults


def test_check_names_one_of_each_fault_and_train_skips_exactly_those(
    faulty: tuple[Path, dict[str, str]], drawn: Path, tmp_path: Path
) -> None:
    root, faults = faulty
    report_file = tmp_path / "report.json"
    code, output = fastuda("data", "check", "gta5", root, "--json", report_file)
    assert code == 1
    report = json.loads(report_file.read_text())
    found: dict[str, list[dict[str, Any]]] = {}
    for problem in report["problems"]:
        found.setdefault(Path(problem["file"]).stem, []).append(problem)
    assert set(found) == set(faults)
    for stem, fault in faults.items():
        assert any(fault in f"{problem['kind']} {problem['detail']}" for problem in found[stem]), (stem, found[stem])
        assert stem in output
    assert report["skip"] == [stem for stem in faults if stem != "00001"]

    run = tmp_path / "run"
    roots = ["--source", root, "--target", drawn / "target", "--run", run, "--iterations", 1, "--device", "cpu"]
    code, output = fastuda("train", "demo", *roots, *settings())
    assert code == 1
    assert "1 of 9 images have no label of their name" in output
    assert "--set data.max_unpaired=0.12" in output
    code, output = fastuda("train", "demo", *roots, *settings("data.max_unpaired=0.12"))
    assert code == 0, output
    left_out = json.loads((run / "results.json").read_text())["left_out"]
    assert {split: sum(counts.values()) for split, counts in left_out.items()} == {
        "source": 8,
        "target": 0,
        "evaluation": 0,
    }
    assert (left_out["source"]["without_label"], left_out["source"]["skipped"]) == (1, 7)


def test_training_on_an_unchecked_faulty_folder_names_the_file_and_the_remedy(drawn: Path, tmp_path: Path) -> None:
    root = tmp_path / "source"
    shutil.copytree(drawn / "source", root)
    (root / "images/00002.png").write_bytes(b"junk")
    roots = ["--source", root, "--target", drawn / "target", "--run", tmp_path / "run"]
    code, output = fastuda("train", "demo", *roots, "--device", "cpu", *settings())
    assert code == 1
    assert "images/00002.png" in output
    assert "fastuda data check gta5" in output
    assert not (tmp_path / "run").exists()


def test_a_sound_folder_passes_the_check_and_shows_class_gaps(drawn: Path) -> None:
    compare = ["--compare", "cityscapes", drawn / "target"]
    code, output = fastuda("data", "check", "gta5", drawn / "source", *compare)
    assert code == 0
    assert "9 samples, all sound" in output
    assert "Classes of both domains" in output
