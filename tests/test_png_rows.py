"""PNGs written row by row: the pixels given, the same file whatever the bands, and whole or not at all."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import fastuda.data.reading.png as module
from fastuda.data.reading.png import PngWriter
from fastuda.errors import FastudaError
from fastuda.evaluation.label_files import png_rows


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def written(path: Path, pixels: NDArray[np.uint8], rows_at_once: int) -> bytes:
    with png_rows(path, (pixels.shape[1], pixels.shape[0]), colour=pixels.ndim == 3) as write:
        for top in range(0, len(pixels), rows_at_once):
            write(pixels[top : top + rows_at_once])
    return path.read_bytes()


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 3), (37, 51), (37, 51, 3), (5, 301, 3), (400, 2)])
@pytest.mark.parametrize("chunk", [7, 1 << 18])
def test_a_png_has_the_pixels_given_in_whatever_bands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], chunk: int
) -> None:
    monkeypatch.setattr(module, "_CHUNK_BYTES", chunk)
    pixels = noise(*shape)
    files = {written(tmp_path / f"deeper/{rows}.png", pixels, rows) for rows in (1, 3, 1000)}
    assert len(files) == 1
    with Image.open(tmp_path / "deeper/3.png") as file:
        file.verify()
    with Image.open(tmp_path / "deeper/3.png") as file:
        assert file.mode == ("RGB" if len(shape) == 3 else "L")
        assert np.array_equal(np.asarray(file), pixels)
    assert {path.name for path in (tmp_path / "deeper").iterdir()} == {"1.png", "3.png", "1000.png"}


@pytest.mark.parametrize("shape", [(2, 5), (2, 4, 3), (4, 4), (2, 4, 1)])
def test_rows_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    writer = PngWriter(lambda content: None, (4, 3), colour=False)
    with pytest.raises(ValueError, match="that are left"):
        writer.write(noise(*shape))


def test_a_file_with_rows_missing_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 rows are missing"), png_rows(tmp_path / "a.png", (4, 3)) as write:
        write(noise(2, 4))
    assert list(tmp_path.iterdir()) == []


def _interrupted(path: Path, error: BaseException) -> None:
    with png_rows(path, (4, 3)) as write:
        write(noise(2, 4))
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), FastudaError("elsewhere"), OSError(errno.EIO, "elsewhere")])
def test_what_ends_the_writing_leaves_the_old_file_and_is_no_fault_of_the_disk(
    tmp_path: Path, error: BaseException
) -> None:
    old = written(tmp_path / "a.png", noise(3, 4), 3)
    with pytest.raises(type(error)) as caught:
        _interrupted(tmp_path / "a.png", error)
    assert caught.value is error
    assert (tmp_path / "a.png").read_bytes() == old
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_disk_that_takes_no_more_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, before[1]))
    try:
        with pytest.raises(FastudaError) as caught:
            written(tmp_path / "a.png", noise(1000, 1000, 3), 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(caught.value).startswith(f"{tmp_path / 'a.png'}: cannot be written (File too large)")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "message"), [(errno.ENOSPC, "no space left on the disk"), (errno.EACCES, "cannot be written")]
)
def test_a_file_that_cannot_take_its_name_is_named_and_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    old = written(tmp_path / "a.png", noise(3, 4), 3)

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(FastudaError, match=rf"a\.png: {message}"):
        written(tmp_path / "a.png", noise(3, 4), 3)
    assert (tmp_path / "a.png").read_bytes() == old
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FastudaError, match=r"file/deeper: cannot be written \(Not a directory\)"):
        written(tmp_path / "file/deeper/a.png", noise(3, 4), 3)
