"""What can be wrong with a JPEG and its EXIF: one damaged file a call."""

from __future__ import annotations

import struct
from pathlib import Path

from faults.image_file import Dice, chunk, jpeg_with, photograph, png, tiff_ifd

_ORIENTATIONS: dict[str, tuple[int, int, bytes]] = {
    "text": (2, 4, b"six\0"), "long text": (2, 2**20, b"\x1a\0\0\0"), "zero": (3, 1, b"\0"), "nine": (3, 1, b"\x09"),
    "65535": (3, 1, b"\xff\xff"), "huge": (4, 1, b"\xff\xff\xff\xff"), "two": (3, 2, b"\x06\0\x03\0"),
    "none": (3, 0, b""), "fraction": (5, 1, b"\x1a\0\0\0"), "far away": (5, 1, b"\xff\xff\xff\x7f"),
    "bytes": (7, 4, b"\6\6\6\6"),
    "floating": (11, 1, struct.pack("<f", 6.0)), "not a number": (11, 1, struct.pack("<f", float("nan"))),
    "signed": (9, 1, b"\xff\xff\xff\xff"), "unknown type": (99, 1, b"\x06"), "very many": (3, 2**31, b"\x06"),
    "turned": (3, 1, b"\x06"), "mirrored": (3, 1, b"\x05"),
}  # fmt: skip


def exif_orientation(name: str) -> bytes:
    """EXIF whose orientation is that of `_ORIENTATIONS`."""
    return b"Exif\0\0" + tiff_ifd([(0x0112, *_ORIENTATIONS[name])])


ORIENTATIONS = tuple(_ORIENTATIONS)


def _with_exif(dice: Dice, exif: bytes) -> Path:
    form = dice.roll.choice(["JPEG", "PNG", "WEBP"])
    if form == "PNG":
        return dice.file("png", png(colour=0 if dice.is_label else 2, before=[chunk(b"eXIf", exif[6:])]))
    if form == "WEBP":
        return dice.file("webp", dice.saved(form, exif=exif, lossless=True))
    return dice.file("jpg", jpeg_with(dice.saved(form), exif[: 2**16 - 3]))


def orientation(dice: Dice) -> Path:
    return _with_exif(dice, exif_orientation(dice.roll.choice(ORIENTATIONS)))


def exif_loops(dice: Dice) -> Path:
    """Directories that lead to themselves, to one another, out of the file; cut; of thousands of entries."""
    pointer = dice.roll.choice([0x8769, 0x8825, 0xA005, 0x014A])
    where = dice.roll.choice([8, 0, 2**31, 2**32 - 1, 20])
    entries = [(pointer, 4, 1, struct.pack("<I", where)), (0x0112, 3, 1, b"\x06")]
    exif = dice.roll.choice(
        [
            tiff_ifd(entries, following=8), tiff_ifd(entries, following=2**32 - 1), tiff_ifd(entries * 2500),
            tiff_ifd(entries)[: dice.roll.randrange(30)], b"II*\0" + dice.roll.randbytes(60), b"",
            b"MM\0*\0\0\0\x08\xff\xff",
            tiff_ifd(entries, little=False), b"XX*\0" + bytes(20), b"II+\0\x08\0\0\0" + bytes(8),
        ]
    )  # fmt: skip
    return _with_exif(dice, b"Exif\0\0" + exif)


def _frame(data: bytes) -> int:
    """Where a JPEG's frame header begins."""
    return next(at for code in (b"\xff\xc0", b"\xff\xc2") if (at := data.find(code)) > 0)


def jpeg_size(dice: Dice) -> Path:
    """Another size in the frame header, or two frame headers."""
    data = dice.saved("JPEG")
    at = _frame(data)
    size = dice.roll.choice([(0, 0), (0, 24), (16, 0), (65535, 65535), (160, 24), (16, 240), (1, 1)])
    changed = data[: at + 5] + struct.pack(">HH", *size) + data[at + 9 :]
    if dice.roll.random() < 0.4:
        length = struct.unpack(">H", data[at + 2 : at + 4])[0]
        changed = data[:at] + changed[at : at + 2 + length] + data[at:]
    return dice.file("jpg", changed)


def jpeg_progressive(dice: Dice) -> Path:
    data = dice.saved("JPEG", progressive=True)
    kept = len(data) if dice.roll.random() < 0.5 else dice.roll.randrange(_frame(data), len(data))
    return dice.file("jpg", data[:kept])


def jpeg_scans(dice: Dice) -> Path:
    """Thousands of scans over the same pixels."""
    data = dice.saved("JPEG", progressive=True)
    at = data.index(b"\xff\xda")
    return dice.file("jpg", data[:at] + data[at : at + 60] * 2000 + data[at:])


def jpeg_colours(dice: Dice) -> Path:
    mode = dice.roll.choice(["CMYK", "L", "YCbCr"])
    data = dice.saved("JPEG", photograph(dice.roll).convert(mode))
    if dice.roll.random() < 0.5:
        data = jpeg_with(data, b"Adobe\0\x64\0\0\0\0" + bytes([dice.roll.choice([0, 1, 2, 3, 255])]), 0xEE)
    return dice.file("jpg", data)


def jpeg_process(dice: Dice) -> Path:
    """Arithmetic, lossless and hierarchical frames, and precisions of 12 and 0 bits."""
    data = bytearray(dice.saved("JPEG"))
    at = _frame(bytes(data))
    data[at + 1] = dice.roll.choice([0xC1, 0xC2, 0xC3, 0xC5, 0xC9, 0xCA, 0xCB, 0xCF, 0xF7])
    data[at + 4] = dice.roll.choice([8, 8, 12, 0, 16, 255])
    data[at + 9] = dice.roll.choice([3, 3, 1, 0, 2, 4, 255])
    return dice.file("jpg", bytes(data))


def jpeg_tables(dice: Dice) -> Path:
    """Tables taken out or spoilt, restart intervals that are none."""
    data = dice.saved("JPEG")
    code = dice.roll.choice([b"\xff\xdb", b"\xff\xc4", b"\xff\xda"])
    at = data.index(code)
    length = struct.unpack(">H", data[at + 2 : at + 4])[0]
    segment = data[at : at + 2 + length]
    changed = dice.roll.choice(
        [b"", segment[:4] + dice.roll.randbytes(length - 2), b"\xff\xdd\0\4\xff\xff" + segment, segment * 50]
    )
    return dice.file("jpg", data[:at] + changed + data[at + 2 + length :])


def jpeg_segments(dice: Dice) -> Path:
    """Profiles, previews and Photoshop's blocks that are cut, huge, without end; several pictures in one file."""
    data = dice.saved("JPEG")
    content = dice.roll.choice(
        [
            b"ICC_PROFILE\0\1\xff" + bytes(90), b"ICC_PROFILE\0\0\0",
            b"Photoshop 3.0\x008BIM" + bytes([4, 4]) + b"\xff" * 9, b"JFIF\0",
            b"MPF\0II*\0\x08\0\0\0\xff\xff",
            b"MPF\0" + tiff_ifd([(0xB001, 4, 1, b"\xff\xff\xff\x7f"), (0xB002, 7, 2**31, b"\x08")]),
            b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation='7'", b"Adobe", b"AdobeX", b"Exif\0\0",
        ]
    )  # fmt: skip
    code = {b"I": 0xE2, b"P": 0xED, b"J": 0xE0, b"M": 0xE2, b"h": 0xE1, b"A": 0xEE, b"E": 0xE1}[content[:1]]
    return dice.file("jpg", jpeg_with(data, content, code))
