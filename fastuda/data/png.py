"""A PNG writer for packed copies: one filter, fastest deflate, half of Pillow's time at its level 1; a PNG's size."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from fastuda.data.images import PNG_SIGNATURE

_FILTER_NONE, _FILTER_UP = 0, 2
_GREY, _RGB = 0, 2


def encode_png(pixels: NDArray[np.uint8], level: int = 1) -> bytes:
    """An 8-bit PNG of [H, W] (grey) or [H, W, 3] (RGB) uint8 `pixels`, lossless; `level` is deflate's, 0-9.

    RGB rows are stored as differences to the row above. Trying all five filters a row, as Pillow
    does, doubles the time, saves next to nothing and slows decoding (`bench/results/formats.json`). Labels
    are long runs of one value, which deflate packs best unfiltered.
    """
    height, width = pixels.shape[:2]
    colour = pixels.ndim == 3
    rows = np.ascontiguousarray(pixels).reshape(height, -1)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = _FILTER_UP if colour else _FILTER_NONE
    if colour:
        filtered[0, 1:] = rows[0]
        np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    else:
        filtered[:, 1:] = rows
    packer = zlib.compressobj(level, zlib.DEFLATED, 15, 9)
    body = packer.compress(filtered.data) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, _RGB if colour else _GREY, 0, 0, 0)
    return PNG_SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def png_size(data: NDArray[np.uint8]) -> tuple[int, int] | None:
    """Width and height by the header of a PNG's bytes; None where there is none."""
    head = data[:24].tobytes()
    if len(head) < 24 or not head.startswith(PNG_SIGNATURE) or head[12:16] != b"IHDR":
        return None
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))
