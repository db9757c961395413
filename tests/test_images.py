"""Reading images: a limit is not damage, and is named with how to raise it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastuda.data.reading.faults import SampleError
from fastuda.data.reading.images import LIMIT_VARIABLE, decode, pixel_limit, read_colour, read_file
from fastuda.data.reading.labels import read_label
from fastuda.errors import UsageError


def write(path: Path, size: tuple[int, int], mode: str = "RGB", **options: object) -> Path:
    Image.new(mode, size).save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif"])
def test_an_image_above_the_limit_is_named_with_its_size_the_limit_and_how_to_raise_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = write(tmp_path / name, (60, 40))
    monkeypatch.setenv(LIMIT_VARIABLE, "2_399")
    with pytest.raises(SampleError) as caught:
        read_colour(read_file(path), path)
    assert caught.value.kind == "too large"
    said = str(caught.value)
    assert "60×40 are 2,400 pixels, above the limit of 2,399" in said
    assert f"{LIMIT_VARIABLE}=2400" in said
    assert "again" not in said
    monkeypatch.setenv(LIMIT_VARIABLE, "2400")
    assert read_colour(read_file(path), path).size == (60, 40)


def test_labels_have_the_limit_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.png", (60, 40), "L")
    monkeypatch.setenv(LIMIT_VARIABLE, "100")
    with pytest.raises(SampleError, match="60×40 are 2,400 pixels"):
        read_label(path, "folder")


def test_pillows_own_limit_neither_warns_nor_stops_and_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.png", (60, 40))
    for limit in (1500, 1000):  # where Pillow warns, and where it refuses
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert decode(read_file(path), path).size == (60, 40)
        assert limit == Image.MAX_IMAGE_PIXELS


def test_the_limit_is_a_whole_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LIMIT_VARIABLE, raising=False)
    assert pixel_limit() == 178_956_970
    monkeypatch.setenv(LIMIT_VARIABLE, "many")
    with pytest.raises(UsageError, match="FASTUDA_MAX_PIXELS=many: a whole number"):
        pixel_limit()


def test_a_damaged_image_is_still_damaged(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", (60, 40))
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "png")
    path.write_bytes(buffer.getvalue()[:-300])
    with pytest.raises(SampleError, match="ends too early"):
        read_colour(read_file(path), path)
