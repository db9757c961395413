"""PNG writers: one filter, fastest deflate, half of Pillow's time at its level 1; and a PNG's size.

Packed copies are encoded at once, pictures of any size in bands of rows.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fastuda.data.reading.images import PNG_SIGNATURE

_FILTER_NONE, _FILTER_UP = 0, 2
_GREY, _RGB = 0, 2
_CHUNK_BYTES = 1 << 18


def encode_png(pixels: NDArray[np.uint8], level: int = 1) -> bytes:
    """An 8-bit PNG of [H, W] (grey) or [H, W, 3] (RGB) uint8 `pixels`, lossless; `level` is deflate's, 0-9.

    RGB rows are stored as differences to the row above. Trying all five filters a row, as Pillow
    does, doubles the time, saves next to nothing and slows decoding (`bench/results/formats.json`). Labels
    are long runs of one value, which deflate packs best unfiltered.
    """
    height, width = pixels.shape[:2]
    colour = pixels.ndim == 3
    filtered = _filtered(np.ascontiguousarray(pixels).reshape(height, -1), colour, None)
    packer = zlib.compressobj(level, zlib.DEFLATED, 15, 9)
    body = packer.compress(filtered.data) + packer.flush()
    return _head(width, height, colour) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


class PngWriter:
    """The PNG of `encode_png`, but for how its data are cut up, from bands of rows as they come."""

    def __init__(
        self, write: Callable[[bytes], object], size: tuple[int, int], *, colour: bool, level: int = 1
    ) -> None:
        """`write` takes the file's bytes, piece by piece; `size` is width and height; `colour`: RGB, otherwise grey."""
        width, self._rows_left = size
        self._write, self._colour = write, colour
        self._packer = zlib.compressobj(level, zlib.DEFLATED, 15, 9)
        self._packed = bytearray()
        self._above: NDArray[np.uint8] | None = None
        self._row_shape = (width, 3) if colour else (width,)
        write(_head(width, self._rows_left, colour))

    def write(self, rows: NDArray[np.uint8]) -> None:
        """The next rows, uint8 [h, W] (grey) or [h, W, 3] (RGB); ValueError for rows that do not fit the size."""
        if rows.shape[1:] != self._row_shape or len(rows) > self._rows_left:
            raise ValueError(f"rows {rows.shape} for {self._rows_left} × {self._row_shape} that are left")
        if not len(rows):
            return
        flat = np.ascontiguousarray(rows).reshape(len(rows), -1)
        self._packed += self._packer.compress(_filtered(flat, self._colour, self._above).data)
        self._above = flat[-1].copy()
        self._rows_left -= len(rows)
        while len(self._packed) >= _CHUNK_BYTES:
            self._write(_chunk(b"IDAT", bytes(self._packed[:_CHUNK_BYTES])))
            del self._packed[:_CHUNK_BYTES]

    def finish(self) -> None:
        """Write what follows the last row; ValueError when rows are missing."""
        if self._rows_left:
            raise ValueError(f"{self._rows_left} rows are missing")
        self._packed += self._packer.flush()
        self._write(_chunk(b"IDAT", bytes(self._packed)) + _chunk(b"IEND", b""))


def _filtered(rows: NDArray[np.uint8], colour: bool, above: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """Rows [h, bytes] as they are deflated, [h, 1 + bytes]; `above` is the row before the first, if there is one."""
    filtered = np.empty((len(rows), rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = _FILTER_UP if colour else _FILTER_NONE
    if colour:
        filtered[0, 1:] = rows[0] if above is None else rows[0] - above
        np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    else:
        filtered[:, 1:] = rows
    return filtered


def _head(width: int, height: int, colour: bool) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, _RGB if colour else _GREY, 0, 0, 0)
    return PNG_SIGNATURE + _chunk(b"IHDR", header)


def png_size(data: NDArray[np.uint8]) -> tuple[int, int] | None:
    """Width and height by the header of a PNG's bytes; None where there is none."""
    head = data[:24].tobytes()
    if len(head) < 24 or not head.startswith(PNG_SIGNATURE) or head[12:16] != b"IHDR":
        return None
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))
