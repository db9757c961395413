"""A JPEG's structure: sound files of every kind are called so, damage that decoders disagree on is not."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from fastuda.classes import ClassSet
from fastuda.data.checking.check import check
from fastuda.data.reading.jpeg import jpeg_damage, jpeg_size
from fastuda.recipe import Domain

SIZES = [(1, 1), (7, 9), (64, 48)]
# A comment and a tag that hold what would be markers; a profile that takes two segments.
KINDS: list[dict[str, Any]] = [
    {},
    {"progressive": True},
    {"optimize": True},
    {"restart_marker_blocks": 1},
    {"restart_marker_rows": 1, "progressive": True},
    {"subsampling": "4:4:4"},
    {"comment": b"\xff\xd9\xff\xda\x00\xff"},
    {"exif": b"Exif\x00\x00" + bytes(range(256))},
    {"icc_profile": bytes(range(256)) * 300},
]


def picture(size: tuple[int, int] = (64, 48), mode: str = "RGB") -> Image.Image:
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize(size).convert(mode)


def encoded(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", **{"quality": 90, **options})
    return buffer.getvalue()


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_sound_files_are_called_sound(options: dict[str, Any], mode: str) -> None:
    for size in SIZES:
        for quality in (5, 90, 100):
            content = encoded(picture(size, mode), quality=quality, **options)
            assert jpeg_damage(content) is None
            assert jpeg_damage(content + b"\xff\xd8 and whatever a camera puts behind it") is None
            assert jpeg_size(content) == size


@pytest.mark.parametrize(
    "options",
    [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 3], [cv2.IMWRITE_JPEG_OPTIMIZE, 1]],
)
def test_files_of_another_writer_are_called_sound(options: list[int]) -> None:
    content = cv2.imencode(".jpg", np.asarray(picture()), options)[1].tobytes()
    assert jpeg_damage(content) is None
    assert jpeg_size(content) == (64, 48)


def changed(content: bytes, place: int, value: int) -> bytes:
    return content[:place] + bytes([value]) + content[place + 1 :]


@pytest.mark.parametrize("options", KINDS[:6])
def test_damage_is_told(options: dict[str, Any]) -> None:
    content = encoded(picture(), **options)
    tables, scan = content.index(b"\xff\xc4"), content.index(b"\xff\xda")
    middle = (scan + len(content)) // 2
    damages = {
        "no end": content[:-2],
        "half": content[:middle],
        "zeros at the end": content[:middle] + bytes(len(content) - middle),
        "a marker's first byte": changed(content, tables, 0x7F),
        "a marker's code": changed(content, tables + 1, 0x00),
        "a length of 0": changed(changed(content, tables + 2, 0), tables + 3, 0),
        "a length past the end": changed(content, tables + 2, 0xFF),
        "a second start": content[:middle] + b"\xff\xd8" + content[middle:],
        "a frame in the scan": content[:middle] + b"\xff\xc0" + content[middle:],
        "a reserved marker": content[:middle] + b"\xff\x02" + content[middle:],
        "the file again": content[:middle] + content,
        "nothing behind the start": content[:4],
    }
    told = {what: jpeg_damage(damage) for what, damage in damages.items()}
    assert [what for what, damage in told.items() if damage is None] == []


def test_what_dali_refuses_and_pillow_forgives_is_told() -> None:
    """Each byte of the header in turn, as far as Pillow decodes the file all the same."""
    dali = pytest.importorskip("nvidia.dali")
    content = encoded(picture((16, 16)))
    scan = content.index(b"\xff\xda")
    starts = [at for at in range(2, scan) if content[at] == 0xFF]
    refused = told = 0
    for place, value in [(at + step, value) for at in starts for step in (0, 1, 2, 3) for value in (0x00, 0xFE)]:
        damage = changed(content, place, value)
        try:
            Image.open(io.BytesIO(damage)).load()
        except (OSError, SyntaxError):
            continue
        pipe = dali.Pipeline(batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1)
        with pipe:
            source = dali.fn.external_source(lambda: [np.frombuffer(damage, np.uint8)], dtype=dali.types.UINT8, ndim=1)  # noqa: B023
            pipe.set_outputs(dali.fn.decoders.image(source, output_type=dali.types.RGB))
        pipe.build()
        try:
            pipe.run()
        except RuntimeError:
            refused += 1
            told += jpeg_damage(damage) is not None
    assert refused == told >= 5


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"GIF89a", bytes(100)])
def test_what_is_no_jpeg_has_no_size(content: bytes) -> None:
    assert jpeg_size(content) is None
    assert (jpeg_damage(content) is not None) == content.startswith(b"\xff\xd8\xff")


@pytest.mark.parametrize("labelled", [False, True])
def test_check_names_damage_as_a_suspicion(labelled: bool, tmp_path: Path) -> None:
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    for name in "abcd":
        content = encoded(picture())
        if name in "bd":
            content = changed(content, content.index(b"\xff\xc4", 300), 0x7F)
        (tmp_path / f"images/{name}.jpg").write_bytes(content)
        label = np.random.default_rng(0).integers(0, 2, (3, 4), np.uint8).repeat(16, 0).repeat(16, 1)
        Image.fromarray(label).save(tmp_path / f"labels/{name}.png")
    domain = Domain(layout="folder", root=tmp_path, images="images/*.jpg", labels="labels/*.png")
    report = check(domain, ClassSet.of(("one", "two")), "train", labelled=labelled)
    assert (report.problems, report.skip) == ([], [])
    (found,) = report.suspicions
    assert (found.kind, found.samples) == ("damaged", ["b", "d"])
    assert (
        f"2 images could be decoded and look damaged all the same ({tmp_path}/images/b.jpg: no marker at"
        in found.detail
    )
