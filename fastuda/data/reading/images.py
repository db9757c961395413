"""Reading image files so strictly that whatever passes here can be decoded by every later reader."""

from __future__ import annotations

import errno
import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageFile, UnidentifiedImageError

from fastuda.data.reading.faults import FaultKind, SampleError
from fastuda.errors import FastudaError, UsageError
from fastuda.files.regular_file import read_regular
from fastuda.printable import on_one_line, shortened

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"
LIMIT_VARIABLE = "FASTUDA_MAX_PIXELS"
_LIMIT = 178_956_970  # Pillow's own: what a small file could unpack to, to fill a machine's memory
_PNG_END = b"IEND\xaeB`\x82"
COLOUR_MODES = ("RGB", "RGBA", "L", "LA", "P", "PA", "1", "CMYK", "YCbCr")
"""Pillow's modes of which 8-bit RGB can be made."""
# What Pillow opens by starting another program, or hands on to whatever the process has registered.
_FOREIGN_FORMATS = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "FPX", "MIC"}
_ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a stored image upright, by EXIF tag; those from 5 on swap width and height."""
_HIGHEST_LIMIT = 1 << 40
# A file of pixels as they are has at most 8 bytes of each; the rest is for profiles, previews and text.
_BYTES_PER_PIXEL, _BYTES_BESIDE = 8, 64 << 20


def read_file(path: Path) -> bytes:
    """The file's bytes; SampleError when it is empty, no regular file, longer than any image, or cannot be read."""
    try:
        data = read_regular(path, _BYTES_PER_PIXEL * pixel_limit() + _BYTES_BESIDE)
    except OSError as error:
        kind: FaultKind = "too large" if error.errno == errno.EFBIG else "undecodable"
        hint = (
            f", more than an image within the limit of pixels needs ({LIMIT_VARIABLE})" if kind == "too large" else ""
        )
        raise SampleError(kind, path, f"cannot be read ({error.strerror}{hint})") from error
    except MemoryError as error:
        raise _no_memory(path) from error
    if not data:
        raise SampleError("empty", path, "the file is empty; fetch it again")
    return data


def decode(data: bytes, path: Path, raw_mode: str | None = None) -> Image.Image:
    """Decode all of `data`, the content of `path`; SampleError (`truncated`, `undecodable`) if that fails.

    An image of more pixels than `pixel_limit` is refused as `too large`: it may well be sound.

    PNG checksums are verified as well: Pillow alone would pass over a wrong one, DALI would not.
    `raw_mode` replaces the sample layout with which Pillow's decoder unpacks a PNG.
    """
    is_png = data.startswith(PNG_SIGNATURE)
    with decoding(data, path):
        if is_png and data[12:16] != b"IHDR":
            raise ValueError("a PNG that does not begin with its header")
        image: Image.Image = open_image(data)
        _require_few_pixels(image, path)
        if is_png:
            image.verify()
            image = open_image(data)
        if raw_mode is not None and isinstance(image, ImageFile.ImageFile):
            image.tile = [tile._replace(args=raw_mode) for tile in image.tile]
        image.load()
        # Some files say another size inside than in front.
        _require_few_pixels(image, path)
        # Neither colours nor ids are transparent, and Pillow warns of what it does not turn into RGBA.
        image.info.pop("transparency", None)
    return image


@contextmanager
def decoding(data: bytes, path: Path) -> Iterator[None]:
    """Whatever Pillow raises inside, over the content of `path`, becomes a SampleError."""
    try:
        yield
    except FastudaError:
        raise
    except MemoryError as error:
        raise _no_memory(path) from error
    # Pillow's plugins meet damaged input with any exception that Python has: of struct, zlib and codecs, KeyError and
    # AttributeError for tags and tables that are missing, RecursionError, OverflowError, warnings that the user has
    # made errors, and from one release to the next others.
    except Exception as error:
        kind = _kind(data, error)
        what = "ends too early" if kind == "truncated" else "is not an image that can be decoded"
        message = on_one_line(str(error).replace(str(path), "").strip()) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            message = "no known image format"
        advice = "fetch it again"
        if "MAX_TEXT" in message:
            what, kind = "holds more text than Pillow reads", "undecodable"
            advice = "save it again without its text and profiles"
        raise SampleError(kind, path, f"{what} ({shortened(message, 200)}); {advice}") from error


_opening = threading.Lock()


def open_image(data: bytes | BinaryIO) -> Image.Image:
    """A file's image, its pixels not yet read: Pillow's `open` without Pillow's limit, which cannot name a size.

    `data` is the file's content, or the open file, which is read from its beginning. What is raised for damaged input
    is Pillow's.
    """
    if not isinstance(data, bytes):
        data.seek(0)
    with _opening:
        Image.preinit()  # the usual formats first, which have to be asked first
        Image.init()
        formats = [name for name in Image.ID if name not in _FOREIGN_FORMATS]
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(io.BytesIO(data) if isinstance(data, bytes) else data, formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def pixel_limit() -> int:
    """How many pixels an image may have: `$FASTUDA_MAX_PIXELS`, or 178,956,970; UsageError for no such number."""
    text = os.environ.get(LIMIT_VARIABLE, "").strip()
    try:
        limit = int(text.replace("_", "")) if text else _LIMIT
    except ValueError:  # also for thousands of digits
        limit = 0
    if not 1 <= limit <= _HIGHEST_LIMIT:
        shown = on_one_line(text, 40)
        raise UsageError(
            f"{LIMIT_VARIABLE}={shown}: a whole number of pixels from 1 to {_HIGHEST_LIMIT}, such as {2 * _LIMIT}"
        )
    return limit


def _require_few_pixels(image: Image.Image, path: Path) -> None:
    pixels = image.width * image.height
    if min(image.size) < 1:
        raise SampleError("undecodable", path, f"{image.width}×{image.height}: it holds no pixel; fetch it again")
    if pixels > pixel_limit():
        raise SampleError(
            "too large", path,
            f"{image.width}×{image.height} are {pixels:,} pixels, above the limit of {pixel_limit():,} that "
            f"guards the machine's memory; if the file is meant to be so large, raise it: {LIMIT_VARIABLE}={pixels}, "
            "or cut or shrink the image",
        )  # fmt: skip


def read_colour(data: bytes, path: Path) -> Image.Image:
    """The image as 8-bit RGB, upright; SampleError when undecodable or of 16-bit or float grey pixels."""
    image = decode(data, path)
    if image.mode not in COLOUR_MODES:
        raise SampleError("mode", path, f"pixels of mode {image.mode} are no colours; save it as 8-bit RGB or grey")
    with decoding(data, path):
        # The turn alone: Pillow's `exif_transpose` writes all metadata anew and fails where any of it is damaged.
        turn_upright = TURNS.get(orientation(image))
        if turn_upright is not None:
            image = image.transpose(turn_upright)
        return image if image.mode == "RGB" else image.convert("RGB")


def orientation(image: Image.Image) -> int:
    """The EXIF orientation tag of an opened image, 1 to 8; 1 is upright.

    A tag that is no such number, or that cannot be read, turns nothing, as in every viewer; it never raises.
    """
    # Damaged metadata raises anything, as damaged pixels do; what is there may be of any type.
    with suppress(Exception):
        if "exif" in image.info:
            tag = image.getexif().get(_ORIENTATION, 1)
            if not isinstance(tag, str | bytes) and tag in range(1, 9):
                return int(tag)
    return 1


def turn(data: bytes) -> int:
    """The EXIF orientation of a file that can be decoded; 1 is upright, 5 to 8 are on their side."""
    with suppress(Exception):  # as above: what can be decoded here is for `decode` to judge
        return orientation(open_image(data))
    return 1


def lossy_format(image: Image.Image, data: bytes) -> str | None:
    """The name of the lossy format that an opened file is in, whatever it is called; None for a lossless one."""
    if image.format in ("JPEG", "MPO", "AVIF", "HEIF", "JPEG2000"):
        return image.format
    if image.format == "WEBP" and b"VP8L" not in data[:64]:
        return "lossy WebP"
    if image.format == "TIFF" and image.info.get("compression") in ("jpeg", "tiff_jpeg", "webp"):
        return "TIFF with JPEG inside"
    return None


def _no_memory(path: Path) -> SampleError:
    return SampleError("too large", path, "does not fit into this machine's memory; cut or shrink the image")


def _kind(data: bytes, error: Exception) -> FaultKind:
    if data.startswith(PNG_SIGNATURE):
        return "undecodable" if _PNG_END in data[-4096:] else "truncated"
    return "truncated" if "truncated" in str(error) else "undecodable"
