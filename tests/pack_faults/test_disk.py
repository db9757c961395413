"""Packs on a disk that refuses writes or deletions, or whose folders go, change or are held by another process."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pack_faults.sound import NUM_SAMPLES, Sound, everything, packed_in, ruined, same

from fastuda.data.packing import prepare
from fastuda.errors import FastudaError
from fastuda.files.lock import held
from fastuda.recipe import Recipe


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
