"""Reading image files so strictly that whatever passes here can be decoded by every later reader."""

from __future__ import annotations

import io
import os
import struct
import threading
import zlib
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from fastuda.data.faults import FaultKind, SampleError
from fastuda.errors import UsageError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"
LIMIT_VARIABLE = "FASTUDA_MAX_PIXELS"
_LIMIT = 178_956_970  # Pillow's own: what a small file could unpack to, to fill a machine's memory
_PNG_END = b"IEND\xaeB`\x82"
_COLOUR_MODES = ("RGB", "RGBA", "L", "LA", "P", "PA", "1", "CMYK", "YCbCr")
# All that Pillow's plugins are seen to raise on damaged input; UnidentifiedImageError is an OSError.
_DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, IndexError, EOFError, struct.error, zlib.error,
)  # fmt: skip


def read_file(path: Path) -> bytes:
    """The file's bytes; SampleError when it is empty or cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SampleError("undecodable", path, f"cannot be read ({error.strerror})") from error
    if not data:
        raise SampleError("empty", path, "the file is empty; fetch it again")
    return data


def decode(data: bytes, path: Path, raw_mode: str | None = None) -> Image.Image:
    """Decode all of `data`, the content of `path`; SampleError (`truncated`, `undecodable`) if that fails.

    An image of more pixels than `pixel_limit` is refused as `too large`: it may well be sound.

    PNG checksums are verified as well: Pillow alone would pass over a wrong one, DALI would not.
    `raw_mode` replaces the sample layout with which Pillow's decoder unpacks a PNG.
    """
    try:
        image: Image.Image = open_image(data)
        _require_few_pixels(image, path)
        if data.startswith(PNG_SIGNATURE):
            image.verify()
            image = open_image(data)
        if raw_mode is not None and isinstance(image, ImageFile.ImageFile):
            image.tile = [tile._replace(args=raw_mode) for tile in image.tile]
        image.load()
    except _DECODE_ERRORS as error:
        kind = _kind(data, error)
        what = "ends too early" if kind == "truncated" else "is not an image that can be decoded"
        message = str(error).replace(str(path), "").strip() or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            message = "no known image format"
        raise SampleError(kind, path, f"{what} ({message}); fetch it again") from error
    return image


_opening = threading.Lock()


def open_image(data: bytes | BinaryIO) -> Image.Image:
    """A file's image, its pixels not yet read: Pillow's `open` without Pillow's limit, which cannot name a size.

    `data` is the file's content, or the open file, which is read from its beginning.
    """
    if not isinstance(data, bytes):
        data.seek(0)
    with _opening:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(io.BytesIO(data) if isinstance(data, bytes) else data)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def pixel_limit() -> int:
    """How many pixels an image may have: `$FASTUDA_MAX_PIXELS`, or 178,956,970; UsageError for no whole number."""
    text = os.environ.get(LIMIT_VARIABLE, "").strip()
    try:
        return int(text.replace("_", "")) if text else _LIMIT
    except ValueError as error:
        raise UsageError(f"{LIMIT_VARIABLE}={text}: a whole number of pixels, such as {2 * _LIMIT}") from error


def _require_few_pixels(image: Image.Image, path: Path) -> None:
    pixels = image.width * image.height
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
    if image.mode not in _COLOUR_MODES:
        raise SampleError("mode", path, f"pixels of mode {image.mode} are no colours; save it as 8-bit RGB or grey")
    if orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def orientation(image: Image.Image) -> int:
    """The EXIF orientation tag of a decoded image; 1 is upright."""
    return int(image.getexif().get(0x0112, 1)) if "exif" in image.info else 1


def turn(data: bytes) -> int:
    """The EXIF orientation of a file that can be decoded; 1 is upright, 5 to 8 are on their side."""
    return orientation(open_image(data))


def lossy_format(image: Image.Image, data: bytes) -> str | None:
    """The name of the lossy format that an opened file is in, whatever it is called; None for a lossless one."""
    if image.format in ("JPEG", "MPO", "AVIF", "HEIF", "JPEG2000"):
        return image.format
    if image.format == "WEBP" and b"VP8L" not in data[:64]:
        return "lossy WebP"
    if image.format == "TIFF" and image.info.get("compression") in ("jpeg", "tiff_jpeg", "webp"):
        return "TIFF with JPEG inside"
    return None


def _kind(data: bytes, error: Exception) -> FaultKind:
    if data.startswith(PNG_SIGNATURE):
        return "undecodable" if _PNG_END in data[-4096:] else "truncated"
    return "truncated" if "truncated" in str(error) else "undecodable"
