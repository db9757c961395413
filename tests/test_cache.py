"""Files reach the cache whole or not at all, and a full disk is said in words."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastuda.data.cache import cache_folder
from fastuda.errors import FastudaError
from fastuda.files.disk import append, make_folder, require_free, write_atomic
from fastuda.recipe import Data


def test_folder_comes_from_recipe_then_environment_then_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FASTUDA_CACHE", str(tmp_path / "environment"))
    assert cache_folder(Data(cache=tmp_path / "recipe")) == tmp_path / "recipe"
    assert cache_folder(Data()) == tmp_path / "environment"
    monkeypatch.delenv("FASTUDA_CACHE")
    assert cache_folder(Data()) == Path.home() / ".cache/fastuda"
    assert cache_folder(Data(cache=Path("~/c"))) == Path.home() / "c"
    monkeypatch.chdir(tmp_path)
    assert cache_folder(Data(cache=Path("here"))) == tmp_path / "here"
    monkeypatch.setenv("FASTUDA_CACHE", "there")
    assert cache_folder(Data()) == tmp_path / "there", "what a run records of it holds wherever it goes on"


def test_too_little_space_is_said_before_writing(tmp_path: Path) -> None:
    require_free(tmp_path / "not/there/yet", 1, "a byte")
    with pytest.raises(
        FastudaError, match=r"yet: a lot needs about 1048576\.0 GiB, and [\d.]+ .iB are free; .*--set data"
    ):
        require_free(tmp_path / "not/there/yet", 1 << 50, "a lot")


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "no space left on the disk; make room"),
        (errno.EACCES, r"cannot be written \(Permission denied\)"),
    ],
)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, number: int, message: str) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def half() -> Iterator[bytes]:
        yield b"n"
        raise OSError(number, {errno.ENOSPC: "No space left", errno.EACCES: "Permission denied"}[number])

    with pytest.raises(FastudaError, match=f"{path}: {message}.*FASTUDA_CACHE"):
        write_atomic(path, half())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"


def test_folders_and_journals_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FastudaError, match=r"file/folder: cannot be written \(Not a directory\)"):
        make_folder(tmp_path / "file/folder")
    append(tmp_path / "journal", b"1\n")
    append(tmp_path / "journal", b"2\n")
    assert (tmp_path / "journal").read_bytes() == b"1\n2\n"
    with pytest.raises(FastudaError, match=r"cannot be written \(Is a directory\)"):
        append(tmp_path, b"1\n")
