"""Photographs read piece by piece: the same pixels, the same small image and the same faults as reading them whole."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fastuda.data.reading.photograph as module
from fastuda.data.reading.faults import SampleError
from fastuda.data.reading.images import LIMIT_VARIABLE, read_colour, read_file
from fastuda.data.reading.photograph import Photograph, bands, read_photograph

SIZES = [(301, 40), (64, 99), (17, 257), (1, 31), (50, 1)]
SMALL = [(64, 32), (16, 40), (301, 20), (128, 99), (1, 1)]


def noise(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(size[0]).integers(0, 256, (size[1], size[0], 4), np.uint8)
    image = Image.fromarray(pixels)
    return image.convert("RGB").convert(mode) if mode == "CMYK" else image.convert(mode)


def written(path: Path, image: Image.Image, tag: int = 1) -> Path:
    exif = Image.Exif()
    exif[0x0112] = tag
    image.save(path, exif=exif)
    return path


def same(found: Image.Image, expected: Image.Image) -> bool:
    return found.mode == expected.mode == "RGB" and np.array_equal(np.asarray(found), np.asarray(expected))


@pytest.fixture(params=[1, 1000, 1 << 20])
def _pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PIECE_PIXELS", request.param)


@pytest.mark.usefixtures("_pieces")
@pytest.mark.parametrize("tag", range(10))
def test_a_turned_photograph_is_what_it_is_when_turned_whole(tmp_path: Path, tag: int) -> None:
    for size in SIZES:
        path = written(tmp_path / "a.jpg", noise(size), tag)
        whole, found = read_colour(read_file(path), path), read_photograph(path)
        assert found.size == whole.size
        assert same(found.piece((0, 0, *whole.size)), whole)
        box = (whole.width // 3, whole.height // 2, whole.width, (whole.height + whole.height // 2 + 1) // 2)
        assert same(found.piece(box), whole.crop(box))
        for small in SMALL:
            assert same(found.resized(small), whole.resize(small, Image.Resampling.BICUBIC)), (size, small)


@pytest.mark.usefixtures("_pieces")
@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("RGBA", "png"), ("L", "png"), ("LA", "png"), ("P", "png"), ("1", "png"), ("CMYK", "jpg"), ("L", "jpg"),
        ("RGBA", "webp"), ("RGB", "tif"), ("CMYK", "tif"), ("RGB", "bmp"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("tag", [1, 6])
def test_a_photograph_of_another_mode_is_what_it_is_when_converted_whole(
    tmp_path: Path, mode: str, suffix: str, tag: int
) -> None:
    for size in SIZES[:3]:
        path = written(tmp_path / f"a.{suffix}", noise(size, mode), tag)
        whole, found = read_colour(read_file(path), path), read_photograph(path)
        assert found.size == whole.size
        assert same(found.piece((0, 0, *whole.size)), whole)
        for small in SMALL:
            assert same(found.resized(small), whole.resize(small, Image.Resampling.BICUBIC)), (size, small)


def test_nothing_of_the_file_stays_with_the_pixels(tmp_path: Path) -> None:
    for suffix in ("jpg", "png", "webp", "tif"):
        kept = vars(read_photograph(written(tmp_path / f"a.{suffix}", noise((40, 30))))._image)
        assert not {"fp", "_fp", "_decoder", "png", "tag_v2"} & kept.keys()


def test_bands_are_of_about_a_million_pixels_and_at_least_a_row() -> None:
    assert list(bands(10, 1 << 18)) == [(0, 4), (4, 8), (8, 10)]
    assert list(bands(3, 1 << 21)) == [(0, 1), (1, 2), (2, 3)]
    assert list(bands(5, 1)) == [(0, 5)]


def _png(chunk: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    noise((40, 30)).save(buffer, "png")
    return buffer.getvalue() + chunk


def _wrong_checksum() -> bytes:
    data = bytearray(_png())
    data[-20] ^= 1
    return bytes(data)


def _deep_grey() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, 5), np.uint16)).save(buffer, "png")
    return buffer.getvalue()


def _jpeg() -> bytes:
    buffer = io.BytesIO()
    noise((300, 200)).save(buffer, "jpeg")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty"), (b"no image", "undecodable"), (_png()[:100], "truncated"), (_png()[:-30], "truncated"),
        (_wrong_checksum(), "undecodable"), (_jpeg()[: 1 << 12], "truncated"), (_deep_grey(), "mode"),
        (zlib.compress(b"x" * 999), "undecodable"), (None, "undecodable"),
    ],
)  # fmt: skip
def test_faults_are_those_of_reading_the_image_whole(tmp_path: Path, content: bytes | None, kind: str) -> None:
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SampleError) as expected:
        read_colour(read_file(path), path)
    with pytest.raises(SampleError) as found:
        read_photograph(path)
    assert (found.value.kind, str(found.value)) == (expected.value.kind, str(expected.value))
    assert found.value.kind == kind


def test_every_cut_of_a_file_is_a_fault(tmp_path: Path) -> None:
    for content in (_png(), _jpeg()[:-2]):
        for end in range(1, len(content) - 12, len(content) // 20):
            path = tmp_path / "a"
            path.write_bytes(content[:end])
            with pytest.raises(SampleError):
                read_photograph(path)


def test_a_photograph_above_the_pixel_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.jpg", noise((60, 40)))
    monkeypatch.setenv(LIMIT_VARIABLE, "2_399")
    with pytest.raises(SampleError, match=r"a\.jpg: 60×40 are 2,400 pixels, above the limit of 2,399"):
        read_photograph(path)
    monkeypatch.setenv(LIMIT_VARIABLE, "2400")
    assert read_photograph(path).size == (60, 40)


def test_an_upright_photograph_needs_no_tag() -> None:
    assert same(Photograph(noise((9, 7))).piece((2, 3, 5, 7)), noise((9, 7)).crop((2, 3, 5, 7)))
