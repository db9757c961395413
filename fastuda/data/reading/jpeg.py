"""A walk over a JPEG's markers: the size it says it has, and whether its structure is whole."""

from __future__ import annotations

import re

from fastuda.data.reading.images import JPEG_SIGNATURE

_END, _SCAN = 0xD9, 0xDA
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_SEGMENTS = {*_FRAMES, 0xC4, 0xCC, *range(0xDA, 0xE0), *range(0xE0, 0xF0), 0xFE}
# What may follow a scan: tables of the next one, the number of lines, a comment.
_AFTER_SCAN = {0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)}
# In a scan, 0xFF is followed by 0 (a byte of data), by a restart marker, or by a fill byte.
_MARKER_IN_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)


class _DamagedError(Exception):
    pass


def jpeg_size(data: bytes | memoryview) -> tuple[int, int] | None:
    """Width and height by the frame header; None where there is no whole one."""
    try:
        return _walk(memoryview(data), to_frame=True)
    except _DamagedError:
        return None


def jpeg_damage(data: bytes) -> str | None:
    """What is wrong with the structure of a JPEG, in words; None when it is whole, or the file is none.

    Decoders of one kind pass over such damage, and others do not. Values of the picture that have changed while every
    marker stayed in its place cannot be told; whatever follows the end of the image is not looked at.
    """
    if not data.startswith(JPEG_SIGNATURE):
        return None
    try:
        _walk(memoryview(data), to_frame=False)
    except _DamagedError as damage:
        return str(damage)
    return None


def _walk(data: memoryview, *, to_frame: bool) -> tuple[int, int] | None:
    """From marker to marker; the size at the frame header with `to_frame`, else None at the end of the image."""
    if bytes(data[:2]) != JPEG_SIGNATURE[:2]:
        raise _DamagedError("no start of an image")
    at, scanned, allowed = 2, False, _SEGMENTS
    while True:
        code, at = _marker(data, at)
        if code == _END and scanned:
            return None
        if code not in allowed:
            raise _DamagedError(f"marker {code:02x} at byte {at - 1}, where it cannot be")
        length = int.from_bytes(data[at : at + 2], "big")
        if length < 2 or at + length > len(data):
            raise _DamagedError(f"a segment at byte {at - 2} whose length is wrong")
        if to_frame and code in _FRAMES:
            if length < 8:
                raise _DamagedError("a frame header that is too short")
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 3 : at + 5], "big")
        at += length
        if code == _SCAN:
            scanned, allowed = True, _AFTER_SCAN
            found = _MARKER_IN_SCAN.search(data, at)
            if found is None:
                raise _DamagedError("no end: the file is cut off")
            at = found.start()


def _marker(data: memoryview, at: int) -> tuple[int, int]:
    """The marker's code at byte `at`, which fill bytes may come before, and where its segment begins."""
    if at >= len(data):
        raise _DamagedError("no end: the file is cut off")
    if data[at] != 0xFF:
        raise _DamagedError(f"no marker at byte {at}, where a segment ends")
    while at < len(data) and data[at] == 0xFF:
        at += 1
    if at >= len(data):
        raise _DamagedError("no end: the file is cut off")
    return data[at], at + 1
