"""Packs damaged in any way are found out and made anew, before a training and in its middle, to the same batches."""

from __future__ import annotations

import errno
import json
import logging
import os
import pickle
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faults.packs import damaged, kind_of
from PIL import Image
from torch import Tensor

from fastuda.data.loading.evaluation_loader import EvaluationLoader
from fastuda.data.loading.training_loader import TrainingLoader
from fastuda.data.packing import pack_sample, prepare
from fastuda.data.packing.pack import FORMAT_VERSION, JOURNAL, Packed
from fastuda.data.packing.pack_index import read_index
from fastuda.data.reading.png import encode_png
from fastuda.errors import FastudaError
from fastuda.files.lock import held
from fastuda.recipe import Data, Domain, Recipe
from fastuda.recipe.file import load_recipe

CPU = torch.device("cpu")
WIDTH, HEIGHT = 40, 24
NUM_SAMPLES = 5
NUM_BATCHES = 8
FORMATS = ["png", "jpeg", "raw"]


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


def packed_in(cache: Path, root: Path, recipe: Recipe, format: str = "png", labels: str = "resized") -> Packed:
    return prepare.prepare(
        Domain(layout="folder", root=root, images="images/*.png", labels="labels/*.png"),
        "train",
        size=(WIDTH, HEIGHT),
        labels=labels,  # type: ignore[arg-type]
        classes=recipe.classes.build(),
        data=Data.model_validate({"cache": cache, "pack": format}),
        workers=1,
    )


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def tensors(batch: Any) -> list[Any]:
    """A batch's fields, flat; DALI's own memory is copied."""
    fields = [one for field in batch for one in (field if isinstance(field, list) else [field])]
    return [one.clone() if isinstance(one, Tensor) else one for one in fields]


def same(one: list[list[Any]], other: list[list[Any]]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b
        for batch, wanted in zip(one, other, strict=True)
        for a, b in zip(batch, wanted, strict=True)
    )


def everything(packed: Packed, recipe: Recipe) -> tuple[list[list[Any]], list[list[Any]]]:
    training = [tensors(batch) for batch in islice(TrainingLoader(packed, "source", recipe, CPU), NUM_BATCHES)]
    return training, [tensors(batch) for batch in EvaluationLoader(packed, 2, 1, CPU)]


class Sound:
    """An undamaged pack: where it lies, and all that comes of it."""

    def __init__(self, cache: Path, root: Path, recipe: Recipe, format: str) -> None:
        self.cache, self.root, self.recipe, self.format = cache, root, recipe, format
        self.packed = packed_in(cache, root, recipe, format)
        self.content = content(self.packed.folder)
        self.batches = everything(self.packed, recipe)

    def copy(self, cache: Path) -> Path:
        shutil.copytree(self.cache, cache)
        return cache / self.packed.folder.name

    def open(self, cache: Path) -> Packed:
        return packed_in(cache, self.root, self.recipe, self.format)


@pytest.fixture(scope="module")
def sound(root: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Sound]:
    known: dict[str, Sound] = {}

    def get(format: str) -> Sound:
        if format not in known:
            known[format] = Sound(tmp_path_factory.mktemp(format), root, recipe, format)
        return known[format]

    return get


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


def ruined(packed: Packed, index: int, kind: str = "images") -> Path:
    path = packed.path(index, kind)  # type: ignore[arg-type]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    return path


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


def test_a_deleted_folder_is_named_file_by_file_only_so_long(
    recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for kind, shape in (("images", (4, 6, 3)), ("labels", (4, 6))):
        (tmp_path / kind).mkdir()
        for i in range(15):
            Image.fromarray(np.full(shape, i % 3, np.uint8)).save(tmp_path / kind / f"{i:03d}.png")
    packed = packed_in(tmp_path / "cache", tmp_path, recipe)
    shutil.rmtree(packed.folder)
    assert len(list(EvaluationLoader(packed, 2, 1, CPU))) == 8
    assert caplog.text.count("made anew from") == 20
    assert caplog.text.count("further ones are made anew without a line each") == 1


def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a read-only mount, which holds for root too."""

    access, opened, low = os.access, Path.open, os.open

    def open_path(path: Path, mode: str = "r", *more: Any, **options: Any) -> Any:
        if mode.strip("bt") != "r":
            raise OSError(30, "Read-only file system")
        return opened(path, mode, *more, **options)

    def open_low(path: Any, flags: int, *more: Any, **options: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(30, "Read-only file system")
        return low(path, flags, *more, **options)

    monkeypatch.setattr(os, "access", lambda path, mode: mode & os.W_OK == 0 and access(path, mode))
    monkeypatch.setattr(Path, "open", open_path)
    monkeypatch.setattr(os, "open", open_low)


def test_a_sound_pack_in_a_read_only_cache_is_used(
    sound: Callable[[str], Sound], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = sound("png")
    folder = wanted.copy(tmp_path / "cache")
    path = ruined(wanted.open(tmp_path / "cache"), 1)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        read_only(patch)
        packed = wanted.open(tmp_path / "cache")
        training, evaluation = everything(packed, wanted.recipe)
        assert path.read_bytes() == before
        assert caplog.text.count("cannot be kept, and is made at every reading") == 1
        assert caplog.text.count(f"{path}: damaged since it was packed; made anew from") == 1
        os.truncate(folder / "images/002.png", 5)
        with pytest.raises(FastudaError, match=r"cannot be written \(Read-only file system\)"):
            wanted.open(tmp_path / "cache")
    assert same(training, wanted.batches[0])
    assert same(evaluation, wanted.batches[1])


def test_a_folder_among_the_packed_files_is_refused(sound: Callable[[str], Sound], tmp_path: Path) -> None:
    folder = sound("png").copy(tmp_path / "cache")
    (folder / "images/mine").mkdir()
    (folder / "images/001.png").unlink()
    with pytest.raises(FastudaError, match=r"images/mine: a folder, which is no part of a packed data set; move it"):
        sound("png").open(tmp_path / "cache")
    (folder / "index.json").unlink(missing_ok=True)
    (folder / "index.json").mkdir()
    with pytest.raises(FastudaError, match=r"index\.json: cannot be read \(Is a directory\); delete"):
        sound("png").open(tmp_path / "cache")


@pytest.mark.parametrize("what", ["images", "labels", "", "journal.jsonl"])
def test_a_cache_deleted_as_the_last_sample_was_packed_is_no_crash(
    what: str, root: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, lines = prepare.append, []

    def deleting(path: Path, line: bytes) -> None:
        append(path, line)
        lines.append(line)
        if len(lines) == NUM_SAMPLES:
            gone = path.parent / what
            gone.unlink() if gone.is_file() else shutil.rmtree(gone)

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "append", deleting)
        if what:
            packed_in(tmp_path, root, recipe)
        else:
            with pytest.raises(FastudaError, match=r"index\.json: cannot be written \(No such file"):
                packed_in(tmp_path, root, recipe)
    whole = packed_in(tmp_path, root, recipe)
    assert {path.parent.name for path in whole.folder.glob("*/*.png")} == {"images", "labels"}


def test_a_disk_that_lets_nothing_be_deleted_is_named(
    root: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = packed_in(tmp_path, root, recipe)
    (packed.folder / "images" / "left over.png").touch()
    damaged_one = next((packed.folder / "labels").iterdir())
    damaged_one.write_bytes(b"")
    unlink = Path.unlink

    def refusing(path: Path, missing_ok: bool = False) -> None:
        if path.name == "left over.png":
            raise OSError(errno.EROFS, "Read-only file system")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refusing)
    with pytest.raises(FastudaError, match=r"left over\.png: cannot be written \(Read-only file system\)"):
        packed_in(tmp_path, root, recipe)


def test_training_does_not_wait_long_for_who_packs_the_same(
    root: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fastuda.data.packing.mend._PATIENCE", 0.1)
    packed = packed_in(tmp_path, root, recipe)
    wanted = [packed.image_bytes(i).tobytes() for i in range(2)]
    shutil.rmtree(packed.folder / "images")
    with held(packed.folder, "packing", wait=False):
        assert [packed.image_bytes(i).tobytes() for i in range(2)] == wanted
    assert "cannot be kept, and is made at every reading" in caplog.text
    told = [record for record in caplog.records if record.levelname == "WARNING"]
    assert sum("another process is packing here" in record.getMessage() for record in told) == 1
    assert packed.image_bytes(0).tobytes() == wanted[0]
    assert len(list((packed.folder / "images").iterdir())) == 1
