"""Label files give the ids that stand in them, and nothing but ids that the layout knows become train ids."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fastuda.classes import CITYSCAPES_16, CITYSCAPES_19, ClassSet
from fastuda.data.reading.faults import SampleError
from fastuda.data.reading.labels import id_table, read_label, to_train_ids
from fastuda.errors import FastudaError
from fastuda.recipe import Domain

CLASSES = ClassSet.of(CITYSCAPES_19)
# Label id:train id, as the data sets' owners and the authors' code have them (protocol row 24).
GTA5_ROW = "7:0 8:1 11:2 12:3 13:4 17:5 19:6 20:7 21:8 22:9 23:10 24:11 25:12 26:13 27:14 28:15 31:16 32:17 33:18"
SYNTHIA_ROW = "1:10 2:2 3:0 4:1 5:4 6:8 7:5 8:13 9:7 10:11 11:18 12:17 15:6 16:9 17:12 18:14 19:15 20:16 21:3"


def write_16_bit_rgb(path: Path, pixels: NDArray[np.uint16], filters: list[int]) -> None:
    """A 16-bit RGB PNG of [H, W, 3] `pixels`, row i filtered by filters[i % len(filters)]."""
    height, width = pixels.shape[:2]
    previous, body = [0] * width * 6, b""
    for y in range(height):
        row = list(pixels[y].astype(">u2").tobytes())
        kind = filters[y % len(filters)]
        out = [kind]
        for i, value in enumerate(row):
            left, up, corner = (row[i - 6], previous[i], previous[i - 6]) if i >= 6 else (0, previous[i], 0)
            by_distance = [(abs(up - corner), left), (abs(left - corner), up), (abs(left + up - 2 * corner), corner)]
            paeth = min(by_distance, key=lambda pair: pair[0])[1]
            out.append((value - (0, left, up, (left + up) // 2, paeth)[kind]) % 256)
        previous, body = row, body + bytes(out)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(body)), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
    )


def synthia_pixels(height: int = 11, width: int = 9, top: int = 23) -> NDArray[np.uint16]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 1 << 16, (height, width, 3)).astype(np.uint16)
    pixels[..., 0] = rng.integers(0, top, (height, width))
    return pixels


@pytest.mark.parametrize("filters", [[0], [1], [2], [3], [4], [4, 2, 0, 3, 1]])
@pytest.mark.parametrize("top", [23, 60_000])
def test_synthia_red_channel_of_16_bit_rgb(tmp_path: Path, filters: list[int], top: int) -> None:
    pixels = synthia_pixels(top=top)
    write_16_bit_rgb(tmp_path / "a.png", pixels, filters)
    assert np.array_equal(read_label(tmp_path / "a.png", "synthia"), pixels[..., 0])


@pytest.mark.parametrize(("layout", "row"), [("gta5", GTA5_ROW), ("cityscapes", GTA5_ROW), ("synthia", SYNTHIA_ROW)])
def test_maps_are_the_protocols(layout: str, row: str) -> None:
    table = id_table(Domain.model_validate({"layout": layout}), CLASSES, Path("a_gtFine_labelIds.png"))
    expected = np.full(1 << 16, 255, np.uint8)
    for pair in row.split():
        label_id, train_id = map(int, pair.split(":"))
        expected[label_id] = train_id
    assert np.array_equal(table.train_ids, expected)


def test_sixteen_classes_leave_out_three() -> None:
    table = id_table(Domain(layout="synthia"), ClassSet.of(CITYSCAPES_16), Path("a.png"))
    by_name = {name: i for i, name in enumerate(CITYSCAPES_16)}
    assert table.train_ids[[16, 18, 20]].tolist() == [255, 255, 255]  # terrain, truck, train
    assert table.train_ids[11] == by_name["bicycle"] == 15
    assert table.known[16]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_gives_indices_not_colours(tmp_path: Path, bits: int) -> None:
    indices = np.arange(12, dtype=np.uint8).reshape(3, 4) & np.uint8((1 << bits) - 1)
    image = Image.fromarray(indices).convert("P")
    image.putdata(indices.ravel().tolist())
    image.putpalette([(i * 37 + 11) % 256 for i in range(768)])
    image.save(tmp_path / "a.png", bits=bits)
    stored = Image.open(tmp_path / "a.png")
    assert stored.mode == "P"
    assert not np.array_equal(np.asarray(stored.convert("L")), indices)
    assert np.array_equal(read_label(tmp_path / "a.png", "gta5"), indices)


def write_grey(path: Path, values: NDArray[np.uint8], bits: int) -> None:
    height, width = values.shape
    packed = b"".join(
        b"\0" + np.packbits(np.unpackbits(row[:, None], axis=1)[:, 8 - bits :]).tobytes() for row in values
    )
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(packed)),
        (b"IEND", b""),
    ]
    body = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(body))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_of_any_depth(tmp_path: Path, bits: int) -> None:
    values = np.arange(24, dtype=np.uint8).reshape(4, 6) & np.uint8((1 << bits) - 1)
    write_grey(tmp_path / "a.png", values, bits)
    assert np.array_equal(read_label(tmp_path / "a.png", "folder"), values)


def test_16_bit_grey(tmp_path: Path) -> None:
    values = np.array([[0, 7, 255], [256, 40_000, 65_535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    raw = read_label(tmp_path / "a.png", "folder")
    assert np.array_equal(raw, values)
    ids = {7: "road", 40_000: "sky", 255: "ignore", 256: "ignore"}
    domain = Domain(layout="folder", images="*", ids=ids)
    with pytest.raises(SampleError, match=r"a\.png: holds the values 0 \(1 pixels\), 65535 \(1 pixels\), outside the"):
        to_train_ids(raw, id_table(domain, CLASSES, tmp_path), tmp_path / "a.png")
    raw = raw[:, 1:2].copy()
    assert to_train_ids(raw, id_table(domain, CLASSES, tmp_path), tmp_path).tolist() == [[0], [10]]


def test_colours_where_ids_belong(tmp_path: Path) -> None:
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    with pytest.raises(SampleError, match=r"a\.png: a label of mode RGB holds colours, and ids are expected") as error:
        read_label(tmp_path / "a.png", "gta5")
    assert error.value.kind == "mode"
    with pytest.raises(SampleError, match="mode RGB where SYNTHIA's own are 16-bit RGB"):
        read_label(tmp_path / "a.png", "synthia")
    Image.new("L", (4, 3)).save(tmp_path / "a.png")
    with pytest.raises(SampleError, match="mode L where SYNTHIA's own are 16-bit RGB"):
        read_label(tmp_path / "a.png", "synthia")


def test_ignored_ids_pass_and_foreign_ones_do_not() -> None:
    gta5 = id_table(Domain(layout="gta5"), CLASSES, Path("a.png"))
    raw = np.array([[0, 7, 34, 255, 33]], np.uint8)
    assert to_train_ids(raw, gta5, Path("a.png")).tolist() == [[255, 0, 255, 255, 18]]
    with pytest.raises(SampleError, match=r"b\.png: holds the value 35 \(1 pixels\), outside GTA5's ids 0-34") as error:
        to_train_ids(np.array([[35, 7]], np.uint8), gta5, Path("b.png"))
    assert error.value.kind == "value"


def test_cityscapes_flavour_follows_the_file_name() -> None:
    domain = Domain(layout="cityscapes")
    raw = np.array([[7, 18, 255]], np.uint8)
    ids = id_table(domain, CLASSES, Path("x_gtFine_labelIds.png"))
    train_ids = id_table(domain, CLASSES, Path("x_gtFine_labelTrainIds.png"))
    assert to_train_ids(raw, ids, Path()).tolist() == [[0, 255, 255]]
    assert to_train_ids(raw, train_ids, Path()).tolist() == [[7, 18, 255]]
    with pytest.raises(SampleError, match="outside Cityscapes' train ids 0-18 and 255"):
        to_train_ids(np.array([[26]], np.uint8), train_ids, Path())
    fewer = id_table(domain, ClassSet.of(("sky", "road")), Path("x_gtFine_labelTrainIds.png"))
    assert to_train_ids(np.array([[0, 10, 5]], np.uint8), fewer, Path()).tolist() == [[1, 0, 255]]


def test_folder_with_and_without_ids() -> None:
    classes = ClassSet.of(("floor", "thing"))
    plain = id_table(Domain(layout="folder", images="*"), classes, Path())
    assert to_train_ids(np.array([[0, 1, 255]], np.uint8), plain, Path()).tolist() == [[0, 1, 255]]
    with pytest.raises(SampleError, match=r"holds the value 2 .* outside train ids 0-1 and 255"):
        to_train_ids(np.array([[2]], np.uint8), plain, Path())
    mapped = id_table(Domain(layout="folder", images="*", ids={5: "thing", 6: "ignore"}), classes, Path())
    assert to_train_ids(np.array([[5, 6, 6]], np.uint8), mapped, Path()).tolist() == [[1, 255, 255]]
    with pytest.raises(SampleError, match=r"the value 255 .*; say in `ids` what 255 is: a class, or 255 = \"ignore\""):
        to_train_ids(np.array([[5, 6, 255]], np.uint8), mapped, Path())
    foreground = id_table(Domain(layout="folder", images="*", ids={0: "floor", 255: "thing"}), classes, Path())
    assert to_train_ids(np.array([[0, 255]], np.uint8), foreground, Path()).tolist() == [[0, 1]]
    with pytest.raises(FastudaError, match="the recipe's `ids`: label id -1"):
        id_table(Domain(layout="folder", images="*", ids={-1: "thing"}), classes, Path())


def test_files_of_which_a_reader_would_take_other_values_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pgm").write_bytes(b"P5\n# drawn by hand\n2 2\n127\n" + bytes([0, 1, 2, 3]))
    with pytest.raises(SampleError, match="a PGM whose largest value is said to be 127"):
        read_label(tmp_path / "a.pgm", "folder")
    (tmp_path / "b.pgm").write_bytes(b"P5 2 2 255\n" + bytes([0, 1, 2, 3]))
    assert read_label(tmp_path / "b.pgm", "folder").tolist() == [[0, 1], [2, 3]]
    pages = [Image.fromarray(np.full((2, 2), i, np.uint8)) for i in range(2)]
    pages[0].save(tmp_path / "c.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(SampleError, match="a label of 2 pages"):
        read_label(tmp_path / "c.tif", "folder")
