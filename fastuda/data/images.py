"""Reading image files so strictly that whatever passes here can be decoded by every later reader."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from fastuda.data.faults import FaultKind, SampleError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"
_PNG_END = b"IEND\xaeB`\x82"
_COLOUR_MODES = ("RGB", "RGBA", "L", "LA", "P", "PA", "1", "CMYK", "YCbCr")
# All that Pillow's plugins are seen to raise on damaged input; UnidentifiedImageError is an OSError.
_DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, IndexError, EOFError, struct.error, zlib.error,
    Image.DecompressionBombError,
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

    PNG checksums are verified as well: Pillow alone would pass over a wrong one, DALI would not.
    `raw_mode` replaces the sample layout with which Pillow's decoder unpacks a PNG.
    """
    try:
        if data.startswith(PNG_SIGNATURE):
            Image.open(io.BytesIO(data)).verify()
        image: Image.Image = Image.open(io.BytesIO(data))
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


def _kind(data: bytes, error: Exception) -> FaultKind:
    if data.startswith(PNG_SIGNATURE):
        return "undecodable" if _PNG_END in data[-4096:] else "truncated"
    return "truncated" if "truncated" in str(error) else "undecodable"
