"""Image and label files as they are before anything is damaged, and the pieces that they are written of."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (24, 16)

"""Width and height of what the mutations spoil, pixels."""

IDS = {0: "road", 1: "car", 7: "ignore"}

"""What the labels of a made data set hold."""

PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Mutant:
    """One file, what was done to it, and whether it is to stand for a label."""

    kind: str
    path: Path
    is_label: bool


@dataclass
class Dice:
    """The dice of a mutation, and where its file goes."""

    roll: random.Random
    seed: int
    folder: Path
    is_label: bool

    def file(self, suffix: str, data: bytes) -> Path:
        """A file of a plain name."""
        path = self.free(suffix)
        path.write_bytes(data)
        return path

    def free(self, suffix: str) -> Path:
        """Where a file of a plain name may go."""
        return self.folder / f"{self.seed:05d}.{suffix}"

    def image(self) -> Image.Image:
        """A sound image, or a sound label."""
        return label(self.roll) if self.is_label else photograph(self.roll)

    def saved(self, form: str, image: Image.Image | None = None, **options: object) -> bytes:
        """What Pillow writes of it."""
        buffer = io.BytesIO()
        (image or self.image()).save(buffer, form, **options)
        return buffer.getvalue()


def photograph(roll: random.Random) -> Image.Image:
    """A sound RGB image."""
    return Image.fromarray(np.frombuffer(roll.randbytes(SIZE[0] * SIZE[1] * 3), np.uint8).reshape(SIZE[1], SIZE[0], 3))


def label(roll: random.Random) -> Image.Image:
    """A sound label of the values of `IDS`."""
    values = np.frombuffer(roll.randbytes(SIZE[0] * SIZE[1]), np.uint8) % 3
    return Image.fromarray(np.array([*IDS], np.uint8)[values].reshape(SIZE[1], SIZE[0]))


def chunk(name: bytes, data: bytes, crc: int | None = None) -> bytes:
    """A PNG's chunk, with its own checksum unless another is given."""
    sum_ = zlib.crc32(name + data) if crc is None else crc
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", sum_)


def png(
    size: tuple[int, int] = SIZE,
    depth: int = 8,
    colour: int = 2,
    interlaced: int = 0,
    *,
    before: Sequence[bytes] = (),
    pixels: bytes | None = None,
    behind: Sequence[bytes] = (),
    method: int = 0,
) -> bytes:
    """A PNG of zeros, its header as asked for whatever lies behind it; `pixels` are the compressed data."""
    header = struct.pack(">IIBBBBB", *size, depth, colour, method, 0, interlaced)
    if pixels is None:
        channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1)
        row = (min(size[0], 999) * channels * depth + 7) // 8
        pixels = zlib.compress(bytes((row + 1) * min(size[1], 999)))
    data = [chunk(b"IHDR", header), *before, chunk(b"IDAT", pixels), *behind, chunk(b"IEND", b"")]
    return PNG + b"".join(data)


def tiff_ifd(entries: Sequence[tuple[int, int, int, bytes]], following: int = 0, little: bool = True) -> bytes:
    """A TIFF header and one directory at byte 8 of (tag, type, count, four bytes), as EXIF has it too."""
    order = "<" if little else ">"
    start = b"II*\0" if little else b"MM\0*"
    body = struct.pack(order + "H", len(entries))
    for tag, kind, count, value in entries:
        body += struct.pack(order + "HHI", tag, kind, count) + value[:4].ljust(4, b"\0")
    return start + struct.pack(order + "I", 8) + body + struct.pack(order + "I", following)


def jpeg_with(data: bytes, segment: bytes, code: int = 0xE1) -> bytes:
    """A JPEG with one more segment in front."""
    return data[:2] + b"\xff" + bytes([code]) + struct.pack(">H", len(segment) + 2) + segment + data[2:]
