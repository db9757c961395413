"""Packs damaged in any way are found out and made anew, before a training and in its middle, to the same batches."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from faults.packs import damaged, kind_of
from pack_faults.sound import (
    CPU,
    HEIGHT,
    NUM_BATCHES,
    NUM_SAMPLES,
    WIDTH,
    Sound,
    content,
    everything,
    packed_in,
    ruined,
    same,
    tensors,
)
from PIL import Image

from fastuda.data.loading.evaluation_loader import EvaluationLoader
from fastuda.data.loading.training_loader import TrainingLoader
from fastuda.data.packing import pack_sample
from fastuda.data.packing.pack import FORMAT_VERSION, JOURNAL, KINDS
from fastuda.data.packing.pack_index import read_index
from fastuda.data.reading.png import encode_png
from fastuda.errors import FastudaError
from fastuda.recipe import Recipe

FORMATS = ["png", "jpeg", "raw"]


@pytest.mark.parametrize("seed", range(57))
def test_a_pack_that_was_damaged_is_found_out_at_the_start(
    seed: int, sound: Callable[[str], Sound], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = sound(FORMATS[seed // 19])
    folder = wanted.copy(tmp_path / "cache")
    what = damaged(seed, folder)
    assert content(folder) != wanted.content if folder.exists() else True
    packed = wanted.open(tmp_path / "cache")
    training, evaluation = everything(packed, wanted.recipe)
    assert same(training, wanted.batches[0]), what
    assert same(evaluation, wanted.batches[1]), what
    assert wanted.open(tmp_path / "cache") == packed
    assert content(folder) == wanted.content, what
    assert packed.fingerprint == wanted.packed.fingerprint
    # A folder or an index that is not there is no damage: nothing was packed yet.
    if kind_of(seed) not in ("folder deleted", "index deleted"):
        assert any(str(folder) in record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)


@pytest.mark.parametrize("seed", range(57, 114))
def test_a_pack_that_is_damaged_in_flight_goes_on_to_the_same_batches(
    seed: int, sound: Callable[[str], Sound], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = sound(FORMATS[(seed - 57) // 19])
    folder = wanted.copy(tmp_path / "cache")
    packed = wanted.open(tmp_path / "cache")
    loader = TrainingLoader(packed, "source", wanted.recipe, CPU)
    training = [tensors(next(loader))]
    what = damaged(seed, folder)
    training += [tensors(batch) for batch in islice(loader, NUM_BATCHES - 1)]
    evaluation = [tensors(batch) for batch in EvaluationLoader(packed, 2, 1, CPU)]
    assert same(training, wanted.batches[0]), what
    assert same(evaluation, wanted.batches[1]), what
    assert loader.failed == []
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    if not kind_of(seed).startswith("index"):
        assert any("damaged since it was packed; made anew from" in line and str(folder) in line for line in said), what
        assert len(said) == len(set(said)), "each file is named once"
    assert wanted.open(tmp_path / "cache").records == wanted.packed.records
    assert content(folder) == wanted.content, what


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("labels", ["own", "none"])
def test_packs_of_other_kinds_are_mended_too(
    format: str, labels: str, root: Path, recipe: Recipe, tmp_path: Path
) -> None:
    packed = packed_in(tmp_path, root, recipe, format, labels)
    before = content(packed.folder)
    shutil.rmtree(packed.folder)
    with_labels = labels == "own"
    batches = list(EvaluationLoader(packed, 2, 1, CPU, labelled=with_labels))
    assert [label.shape for batch in batches for label in batch.labels] == (
        [(2 * HEIGHT, 2 * WIDTH)] * NUM_SAMPLES if with_labels else []
    )
    assert packed_in(tmp_path, root, recipe, format, labels).records == packed.records
    assert content(packed.folder) == before


def test_every_bit_of_the_index_counts(sound: Callable[[str], Sound], tmp_path: Path) -> None:
    wanted = sound("png")
    folder = wanted.copy(tmp_path / "cache")
    path = folder / "index.json"
    whole = path.read_bytes()
    key = json.loads(whole)["key"]
    rng = np.random.default_rng(0)
    for place in range(0, len(whole), 3):
        torn = bytearray(whole)
        torn[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(torn)
        found = read_index(folder, key)
        assert found is not None
        assert found.fingerprint is None, place
        assert all(record in wanted.packed.records for record in found.records)
        assert len(found.records) >= NUM_SAMPLES - 2, "a line that is damaged costs itself, and its neighbour at most"
    path.write_bytes(whole)
    found = read_index(folder, key)
    assert found is not None
    assert found.records == wanted.packed.records
    other = read_index(folder, {**key, "root": "/elsewhere"})
    assert other is not None
    assert (other.fingerprint, other.records) == (None, []), "nothing of another pack is taken"
    assert key["options"]["version"] == FORMAT_VERSION == 3


def test_a_damaged_index_costs_only_what_its_damaged_lines_say(
    sound: Callable[[str], Sound], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = sound("png")
    folder = wanted.copy(tmp_path / "cache")
    kept = {path: path.stat().st_mtime_ns for path in (folder / "images").iterdir()}
    (folder / "index.json").write_bytes(wanted.content["index.json"].replace(b'"003.png"', b'"009.png"', 1))
    wanted.open(tmp_path / "cache")
    changed = {path.name for path, time in kept.items() if path.stat().st_mtime_ns != time}
    assert changed == {"003.png"}
    assert "index.json: damaged since it was written; made anew, and 1 sample packed again" in caplog.text


def test_an_index_that_is_gone_is_told(
    sound: Callable[[str], Sound], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = sound("png")
    (wanted.copy(tmp_path / "cache") / "index.json").unlink()
    wanted.open(tmp_path / "cache")
    assert "index.json: gone since it was written; all is packed again" in caplog.text


def test_an_index_that_was_not_written_yet_is_not_told_as_gone(
    sound: Callable[[str], Sound], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = sound("png")
    folder = wanted.copy(tmp_path / "cache")
    (folder / "index.json").unlink()
    (folder / JOURNAL).touch()  # killed before its first line
    wanted.open(tmp_path / "cache")
    assert not caplog.text


@pytest.mark.parametrize("kind", ["images", "labels"])
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("changed", r"has changed since it was packed; run again: what has changed is packed anew then"),
        ("gone", r"cannot be read \(No such file or directory\)"),
        ("empty", r"the file is empty; fetch it again"),
        ("truncated", r"has changed since it was packed; run again: what has changed is packed anew then"),
    ],
)
def test_what_cannot_be_mended_names_the_packed_file_and_its_source(
    kind: str, source: str, message: str, root: Path, recipe: Recipe, tmp_path: Path
) -> None:
    mine = shutil.copytree(root, tmp_path / "mine")
    packed = packed_in(tmp_path / "cache", mine, recipe)
    path, original = ruined(packed, 2, kind), mine / kind / "002.png"
    before = original.read_bytes()
    if source == "gone":
        original.unlink()
    else:
        other = (mine / kind / "003.png").read_bytes()
        original.write_bytes({"changed": other, "empty": b"", "truncated": before[:-20]}[source])
    read = packed.image_bytes if kind == "images" else packed.label_bytes
    with pytest.raises(FastudaError, match=rf"^{path}: damaged since .*cannot be made anew: {original}: {message}$"):
        read(2)
    original.write_bytes(before)
    os.utime(original, ns=(1, 1))
    read(2)  # only touched: its content is what was packed


def test_a_pack_without_a_way_to_mend_names_the_file(sound: Callable[[str], Sound], tmp_path: Path) -> None:
    wanted = sound("png")
    wanted.copy(tmp_path / "cache")
    packed = pickle.loads(pickle.dumps(wanted.open(tmp_path / "cache")))
    assert packed == wanted.open(tmp_path / "cache")
    assert packed.mend is None
    for index, kind in ((0, "images"), (1, "labels")):
        path = ruined(packed, index, kind)
        with pytest.raises(FastudaError, match=rf"^{path}: damaged since it was packed \(it has other bytes.*delete"):
            packed.image_bytes(0) if kind == "images" else packed.label_array(1)
    packed.path(2, "images").unlink()
    with pytest.raises(FastudaError, match="it is gone"):
        packed.image_bytes(2)
    packed.path(3, "images").unlink()
    packed.path(3, "images").mkdir()
    with pytest.raises(FastudaError, match="it cannot be read: Is a directory"):
        packed.image_bytes(3)


def test_another_versions_encoder_is_taken_and_written_down(
    sound: Callable[[str], Sound], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = sound("png")
    folder = wanted.copy(tmp_path / "cache")
    packed = wanted.open(tmp_path / "cache")
    ruined(packed, 1)
    monkeypatch.setattr(pack_sample, "encode_png", lambda pixels, level=1: encode_png(pixels, 9))
    assert same([tensors(batch) for batch in EvaluationLoader(packed, 2, 1, CPU)], wanted.batches[1])
    again = wanted.open(tmp_path / "cache")
    assert again.records == packed.records != wanted.packed.records
    assert again.fingerprint == wanted.packed.fingerprint
    assert len(content(folder)["images/001.png"]) == again.records[1].packed_bytes[0]
    assert again.image_bytes(1).tobytes() == content(folder)["images/001.png"]


def folder_of_15(root: Path) -> None:
    """15 small images and label images under `root`: 30 files to pack."""
    for kind, shape in (("images", (4, 6, 3)), ("labels", (4, 6))):
        (root / kind).mkdir()
        for i in range(15):
            Image.fromarray(np.full(shape, i % 3, np.uint8)).save(root / kind / f"{i:03d}.png")


def test_a_deleted_folder_is_named_file_by_file_only_so_long(
    recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder_of_15(tmp_path)
    packed = packed_in(tmp_path / "cache", tmp_path, recipe)
    shutil.rmtree(packed.folder)
    assert len(list(EvaluationLoader(packed, 2, 1, CPU))) == 8
    assert caplog.text.count("made anew from") == 20
    assert caplog.text.count("further ones are made anew without a line each") == 1


def test_that_no_more_are_named_is_said_though_the_next_file_is_mended_meanwhile(
    recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of_15(tmp_path)
    packed = packed_in(tmp_path / "cache", tmp_path, recipe)
    lines = []

    def overtaken(line: logging.LogRecord) -> bool:
        """What another thread does while this one writes its line, the twentieth: the twenty-first file."""
        lines.append(line)
        if len(lines) == 20:
            mend(10)
        return True

    def mend(i: int) -> None:
        for kind in KINDS:
            assert packed.mend is not None
            packed.mend(packed.records[i], kind, "was deleted")

    monkeypatch.setattr(logging.getLogger("fastuda.data.packing.mend"), "filters", [overtaken])
    for i in range(10):
        mend(i)
    assert caplog.text.count("made anew from") == 20
    assert caplog.text.count("further ones are made anew without a line each") == 1
