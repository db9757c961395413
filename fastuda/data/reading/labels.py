"""Label files: raw ids as they stand in the file, and from there to train ids."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastuda.classes import IGNORE_INDEX, ClassSet
from fastuda.data.reading.faults import SampleError
from fastuda.data.reading.images import PNG_SIGNATURE, decode, decoding, lossy_format, read_file
from fastuda.errors import FastudaError
from fastuda.layouts import FOLDER, LAYOUTS, Layout
from fastuda.recipe import Domain

RawLabel = NDArray[np.uint8] | NDArray[np.uint16]

# By bits a sample: what Pillow multiplies grey samples by to fill the range 0-255.
_GREY_SCALE = {2: 85, 4: 17}
_NUM_VALUES = 1 << 16
# Netpbm's "magic width height largest", with comments between.
_BETWEEN = rb"(?:\s|#[^\n]*\n)+"
_PGM_HEADER = re.compile(rb"P[25]" + _BETWEEN + rb"\d+" + _BETWEEN + rb"\d+" + _BETWEEN + rb"0*(\d{1,10})\s")


@dataclass(frozen=True)
class IdTable:
    """The meaning of label values: `train_ids` [65536] uint8, and which values are `known` [65536] bool.

    A known value without a trained class gives 255; an unknown value is a fault of the file.
    """

    train_ids: NDArray[np.uint8]
    known: NDArray[np.bool_]
    expected: str


def read_label(path: Path, layout: str) -> RawLabel:
    """Raw ids [H, W], uint8 or uint16, of a label file, as `data/README.md` has them.

    Palette PNGs give their indices, never their colours; grey PNGs their 1- to 16-bit values; 16-bit RGB PNGs
    the red channel, where the layout says so. Colours where ids are expected, lossy formats (whatever their suffix
    says) and damaged files raise SampleError.
    """
    return decode_label(read_file(path), path, layout)


def decode_label(data: bytes, path: Path, layout: str) -> RawLabel:
    """`read_label` of a file whose bytes are at hand."""
    known = LAYOUTS[layout]
    image = decode(data, path, _LOW_BYTES if known.reader == "red" and _has_16_bit_rgb(data) else None)
    with decoding(data, path):
        return _ids(image, data, path, known)


def _ids(image: Image.Image, data: bytes, path: Path, layout: Layout) -> RawLabel:
    if lossy := lossy_format(image, data):
        raise SampleError(
            "lossy", path,
            f"a label saved as {lossy}: where classes meet, its pixels hold values that nobody drew; save the "
            "original as PNG (converting this file cannot bring the values back)",
        )  # fmt: skip
    _require_one_plain_page(image, data, path)
    if layout.reader == "red":
        return _red(image, data, path, layout)
    if image.mode in ("L", "1"):
        scale = 255 if image.mode == "1" else _GREY_SCALE.get(_png_depth(data), 1)
        return np.asarray(image.convert("L")) // np.uint8(scale)
    if image.mode == "P":
        return np.asarray(image)
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    what = "no whole numbers of 8 or 16 bits" if image.mode in ("I", "F", "LA") else "colours"
    raise SampleError(
        "mode", path,
        f"a label of mode {image.mode} holds {what}, and ids are expected (8- or 16-bit grey, or palette); convert "
        "it to ids, or point to the files that hold ids",
    )  # fmt: skip


def _require_one_plain_page(image: Image.Image, data: bytes, path: Path) -> None:
    """SampleError for files whose values a reader would take from the wrong place, or scale."""
    pages = getattr(image, "n_frames", 1)
    if pages > 1:
        raise SampleError(
            "mode", path, f"a label of {pages} pages or frames, and one is expected; save that one as PNG"
        )
    # Netpbm's largest value, to which readers scale the others.
    header = _PGM_HEADER.match(data)
    if header is not None and header[1] not in (b"255", b"65535"):
        raise SampleError(
            "mode", path,
            f"a PGM whose largest value is said to be {header[1].decode()}: readers scale its values; save it as PNG",
        )  # fmt: skip


def id_table(domain: Domain, classes: ClassSet, path: Path) -> IdTable:
    """The table for the label file `path`: by its layout and the kind that its name ends as, or the recipe's `ids`.

    Known and ignored are the data set's own other ids; 255 too, but for a recipe's `ids`, which have to say so.
    """
    layout = LAYOUTS[domain.layout]
    if not layout.by_globs:
        kind = layout.labels_of(path.name)
        return _table(classes, kind.ids, [*range(kind.num_ids), IGNORE_INDEX], kind.meaning)
    if domain.ids is not None:
        return _table(classes, domain.ids, [*domain.ids], "the recipe's `ids`")
    expected = f"train ids 0-{len(classes) - 1} and 255 (the recipe gives no `ids`)"
    return _table(classes, dict(enumerate(classes.names)), [*range(len(classes)), IGNORE_INDEX], expected)


def to_train_ids(raw: RawLabel, ids: IdTable, path: Path) -> NDArray[np.uint8]:
    """Train ids [H, W] uint8 of raw ids [H, W]; SampleError `value` naming the values outside `ids`."""
    unknown = unknown_values(value_counts(raw), ids)
    if unknown:
        raise unknown_fault(unknown, ids, path)
    return ids.train_ids[raw]


def value_counts(raw: RawLabel) -> NDArray[np.int64]:
    """How many pixels hold each value: [256] for uint8, [65536] for uint16."""
    if raw.dtype == np.uint8:
        # Pillow's histogram of 8-bit pixels takes a fraction of bincount's time.
        return np.asarray(Image.fromarray(raw).histogram(), np.int64)
    return np.bincount(raw.ravel(), minlength=_NUM_VALUES).astype(np.int64)


def unknown_values(counts: NDArray[np.int64], ids: IdTable) -> dict[int, int]:
    """Values present that `ids` does not know, and how many pixels hold each."""
    present = np.flatnonzero(counts)
    return {int(value): int(counts[value]) for value in present[~ids.known[present]]}


def unknown_fault(unknown: dict[int, int], ids: IdTable, path: Path) -> SampleError:
    """The fault of a label file that holds `unknown` values."""
    shown = ", ".join(f"{value} ({count} pixels)" for value, count in list(unknown.items())[:5])
    more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
    noun = "value" if len(unknown) == 1 else "values"
    hint = ""
    if IGNORE_INDEX in unknown:
        hint = f'; say in `ids` what {IGNORE_INDEX} is: a class, or {IGNORE_INDEX} = "ignore"'
    return SampleError("value", path, f"holds the {noun} {shown}{more}, outside {ids.expected}{hint}")


def _table(classes: ClassSet, ids: Mapping[int, str], known: list[int], expected: str) -> IdTable:
    try:
        train_ids = classes.train_id_table(ids, _NUM_VALUES)
    except ValueError as error:
        raise FastudaError(f"the recipe's `ids`: {error}") from error
    is_known = np.zeros(_NUM_VALUES, np.bool_)
    is_known[[*known]] = True
    return IdTable(train_ids, is_known, expected)


# PNG stores 16-bit samples big-endian, and Pillow has no 16-bit RGB image. Its two unpackers keep one byte
# of each sample: "16L", meant for little-endian data, the low one here; "16B" the high one.
_LOW_BYTES, _HIGH_BYTES = "RGB;16L", "RGB;16B"


def _has_16_bit_rgb(data: bytes) -> bool:
    return _png_depth(data) == 16 and data[25] == 2


def _png_depth(data: bytes) -> int:
    """Bits a sample that a PNG's header states; 0 for any other file."""
    return data[24] if data.startswith(PNG_SIGNATURE) and len(data) > 25 else 0


def _red(image: Image.Image, data: bytes, path: Path, layout: Layout) -> RawLabel:
    if not _has_16_bit_rgb(data):
        place = layout.labels[0].places[0].rpartition("/")[0]
        raise SampleError(
            "mode", path,
            f"a label of mode {image.mode} where {layout.title}'s own are 16-bit RGB PNGs; fetch the originals "
            f'({place}), or use layout "{FOLDER.name}" with `ids` for converted labels',
        )  # fmt: skip
    low = np.asarray(image.getchannel("R"))
    high = np.asarray(decode(data, path, _HIGH_BYTES).getchannel("R"))
    if not high.any():
        return low
    red: NDArray[np.uint16] = low + (high.astype(np.uint16) << np.uint16(8))
    return red
