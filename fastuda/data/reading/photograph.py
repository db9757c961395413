"""A photograph of any size, read piece by piece from the one copy of it that the decoder makes."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from fastuda.data.reading.images import (
    COLOUR_MODES,
    PNG_SIGNATURE,
    TURNS,
    open_image,
    orientation,
    pixel_limit,
    read_colour,
    read_file,
)
from fastuda.files.regular_file import open_regular

Box = tuple[int, int, int, int]
"""Left, top, right and bottom; the last two are just outside."""

_PIECE_PIXELS = 1 << 20
_FROM_THE_RIGHT, _FROM_THE_BOTTOM = (2, 3, 7, 8), (3, 4, 6, 7)


class Photograph:
    """A decoded image as 8-bit RGB, upright, though it stays as it was decoded: 4 bytes a pixel, fewer if grey."""

    def __init__(self, image: Image.Image, tag: int = 1) -> None:
        """`tag` is its EXIF orientation, 1 for an upright one."""
        self._image = image
        self._tag = tag if tag in TURNS else 1
        self.size = image.size[::-1] if self._tag >= 5 else image.size
        """Width and height, upright."""

    def piece(self, box: Box) -> Image.Image:
        """What lies in a box of the upright image, RGB."""
        left, top, right, bottom = box
        if self._tag >= 5:
            left, top, right, bottom = top, left, bottom, right
        if self._tag in _FROM_THE_RIGHT:
            left, right = self._image.width - right, self._image.width - left
        if self._tag in _FROM_THE_BOTTOM:
            top, bottom = self._image.height - bottom, self._image.height - top
        piece = self._image.crop((left, top, right, bottom))
        if piece.mode != "RGB":
            piece = piece.convert("RGB")
        return piece if self._tag == 1 else piece.transpose(TURNS[self._tag])

    def resized(self, size: tuple[int, int]) -> Image.Image:
        """The whole image bicubic at `size` (width, height), bit for bit as Pillow resizes an upright RGB image.

        Pillow resizes along one axis, rounds, and then along the other, so it can be done band by band.
        """
        if self._tag == 1 and self._image.mode == "RGB":
            return self._image.resize(size, Image.Resampling.BICUBIC)
        width, height = self.size
        if _columns_first(self.size, size):
            between = Image.new("RGB", (width, size[1]))
            for left, right in bands(width, height):
                piece = self.piece((left, 0, right, height))
                between.paste(piece.resize((right - left, size[1]), Image.Resampling.BICUBIC), (left, 0))
        else:
            between = Image.new("RGB", (size[0], height))
            for top, bottom in bands(height, width):
                piece = self.piece((0, top, width, bottom))
                between.paste(piece.resize((size[0], bottom - top), Image.Resampling.BICUBIC), (0, top))
        return between.resize(size, Image.Resampling.BICUBIC)


def bands(length: int, breadth: int) -> Iterator[tuple[int, int]]:
    """Rows (or columns) cut into bands of about a million pixels: the first one and the one behind the last.

    `length` is how many there are, `breadth` how many pixels each has.
    """
    at_once = max(1, _PIECE_PIXELS // breadth)
    for start in range(0, length, at_once):
        yield start, min(length, start + at_once)


def _columns_first(size: tuple[int, int], new: tuple[int, int]) -> bool:
    """Whether Pillow resizes along the columns first: recent ones do where the height shrinks by far more."""
    (width, height), (new_width, new_height) = size, new
    return _spares_rows() and height > new_height and height - new_height > 2 * (width - new_width)


@functools.cache
def _spares_rows() -> bool:
    """Whether this Pillow ever resizes along the columns first: seen from an image that tells by its rounding."""
    image = Image.frombytes("L", (2, 5), bytes((0, 255, 255, 0, 0, 255, 0, 255, 255, 0)))
    both, one = (16, 1), (2, 1)
    found = image.resize(both, Image.Resampling.BICUBIC)
    return (
        found.tobytes() == image.resize(one, Image.Resampling.BICUBIC).resize(both, Image.Resampling.BICUBIC).tobytes()
    )


def read_photograph(path: Path) -> Photograph:
    """Decode an image file as strictly as `read_colour`, without its bytes or a second copy in memory.

    Raises SampleError as `read_file` and `read_colour` do.
    """
    try:
        found = _decoded(path)
    # Decoders raise anything on damaged input; strict reading meets the same again, and knows what to call it.
    except Exception:
        found = None
    return found or Photograph(read_colour(read_file(path), path))


def _decoded(path: Path) -> Photograph | None:
    """None for an image that only `read_colour` can judge."""
    with open_regular(path) as file:
        is_png = file.read(len(PNG_SIGNATURE)) == PNG_SIGNATURE
        image = open_image(file)
        if not _has_feasible_size(image):
            return None
        if is_png:
            image.verify()
            image = open_image(file)
        image.load()
        if image.mode not in COLOUR_MODES or not _has_feasible_size(image):
            return None
        image.info.pop("transparency", None)  # as `decode` does
        # Without what the decoder keeps beside the pixels.
        return Photograph(image._new(image.im), orientation(image))


def _has_feasible_size(image: Image.Image) -> bool:
    return 0 < image.width * image.height <= pixel_limit()
