"""Image and label files as cameras, tools, disks and strangers leave them: one damaged file a seed."""

from __future__ import annotations

import io
import os
import random
import stat
import struct
import zlib
from collections.abc import Callable, Sequence
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


def _cut(form: str, suffix: str, **options: object) -> Callable[[Dice], Path]:
    def spoil(dice: Dice) -> Path:
        data = dice.saved(form, **options)
        kept = dice.roll.choice([1, 7, 8, 20, 33, dice.roll.randrange(len(data)), len(data) - 1, len(data) - 12])
        return dice.file(suffix, data[: max(1, kept)])

    return spoil


def _flipped(form: str, suffix: str, first: int, last: int | None) -> Callable[[Dice], Path]:
    def spoil(dice: Dice) -> Path:
        data = bytearray(dice.saved(form))
        for _ in range(dice.roll.choice([1, 1, 2, 20])):
            place = dice.roll.randrange(first, min(len(data), last or len(data)))
            data[place] ^= 1 << dice.roll.randrange(8)
        return dice.file(suffix, bytes(data))

    return spoil


def _png_crc(dice: Dice) -> Path:
    data = dice.saved("PNG")
    name = dice.roll.choice([b"IHDR", b"IDAT", b"IEND"])
    at = data.index(name)
    end = at + 4 + struct.unpack(">I", data[at - 4 : at])[0]
    return dice.file("png", data[:end] + dice.roll.randbytes(4) + data[end + 4 :])


def _png_size(dice: Dice) -> Path:
    """Another size in front than the data has."""
    size = dice.roll.choice([(SIZE[0], SIZE[1] * 9), (SIZE[0] * 9, SIZE[1]), (3, 3), (SIZE[0] + 1, SIZE[1])])
    colour = 0 if dice.is_label else 2
    return dice.file("png", png(size, colour=colour, pixels=zlib.compress(bytes(73 * 16))))


def _png_empty(dice: Dice) -> Path:
    return dice.file("png", png(dice.roll.choice([(0, 0), (0, 5), (5, 0)]), colour=0 if dice.is_label else 2))


def _png_bomb(dice: Dice) -> Path:
    """A header that asks for gigabytes and terabytes."""
    size = dice.roll.choice([(100_000, 100_000), (2**31 - 1, 2**31 - 1), (2**32 - 1, 1), (20_000, 20_000)])
    return dice.file("png", png(size, dice.roll.choice([1, 8, 16]), dice.roll.choice([0, 2])))


def _png_16_bit(dice: Dice) -> Path:
    return dice.file("png", png(depth=16, colour=dice.roll.choice([0, 2, 4, 6])))


def _png_few_bits(dice: Dice) -> Path:
    depth = dice.roll.choice([1, 2, 4])
    palette = [chunk(b"PLTE", bytes(3 * 2**depth))]
    colour = dice.roll.choice([0, 3])
    return dice.file("png", png(depth=depth, colour=colour, before=palette if colour else []))


def _png_palette(dice: Dice) -> Path:
    """Palettes that are missing, short, long, of half an entry, twice, behind the pixels."""
    pixels = zlib.compress(b"".join(b"\0" + dice.roll.randbytes(SIZE[0]) for _ in range(SIZE[1])))
    several = dice.roll.choice([[], [b""], [bytes(3)], [bytes(7)], [bytes(3 * 300)], [bytes(9), bytes(768)]])
    palettes = [chunk(b"PLTE", one) for one in several]
    behind = dice.roll.random() < 0.2
    return dice.file(
        "png", png(colour=3, before=[] if behind else palettes, pixels=pixels, behind=palettes if behind else [])
    )


def _png_interlaced(dice: Dice) -> Path:
    colour = 0 if dice.is_label else 2
    return dice.file("png", png(colour=colour, interlaced=dice.roll.choice([1, 1, 2, 255])))


def _png_animated(dice: Dice) -> Path:
    if dice.roll.random() < 0.5:
        frames = [dice.image() for _ in range(3)]
        return dice.file("png", dice.saved("PNG", frames[0], save_all=True, append_images=frames[1:]))
    count = dice.roll.choice([0, 1, 2, 10**6, 2**32 - 1])
    control = struct.pack(">IIIIIHHBB", 0, *dice.roll.choice([SIZE, (0, 0), (9**9, 9**9)]), 5, 5, 1, 0, 9, 9)
    return dice.file(
        "png",
        png(before=[chunk(b"acTL", struct.pack(">II", count, 0)), chunk(b"fcTL", control[: dice.roll.randrange(27)])]),
    )


def _png_transparency(dice: Dice) -> Path:
    content = dice.roll.choice([b"", b"\0", bytes(300), bytes(5), b"\xff" * 6])
    colour = dice.roll.choice([0, 2, 3, 4, 6])
    palette = [chunk(b"PLTE", bytes(768))] if colour == 3 else []
    return dice.file("png", png(colour=colour, before=[*palette, chunk(b"tRNS", content)]))


def _png_text(dice: Dice) -> Path:
    """Text that unpacks to far more than it is, or that is no text."""
    bomb = zlib.compress(bytes(3 << 20))
    content = dice.roll.choice(
        [
            (b"zTXt", b"Comment\0\0" + bomb), (b"iTXt", b"Comment\0\1\0\0\0" + bomb),
            (b"tEXt", b"C\0" + bytes(1 << 20)),
            (b"iTXt", b"\0"), (b"zTXt", b"x\0\7x"), (b"iCCP", b"p\0\0" + bomb), (b"iCCP", b"\xff"),
            (b"tEXt", b"\xff\x1b[2J"),
            (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta tiff:Orientation=\"9\xff\"/>"),
        ]
    )  # fmt: skip
    times = dice.roll.choice([1, 1, 40])
    where = [chunk(*content)] * times
    late = dice.roll.random() < 0.5
    return dice.file(
        "png", png(colour=0 if dice.is_label else 2, before=[] if late else where, behind=where if late else [])
    )


def _png_chunks(dice: Dice) -> Path:
    """Chunks missing, twice, of a wrong length, of unknown critical names."""
    sound = png(colour=0 if dice.is_label else 2)
    at = sound.index(b"IDAT") - 4
    end = sound.index(b"IEND") - 4
    long_ = struct.pack(">I", dice.roll.choice([0, 2**31, 2**32 - 1, 10**6]))
    return dice.file(
        "png",
        dice.roll.choice(
            [
                sound[:at] + sound[end:], sound[:end], sound[:at] + sound[at:end] * 2 + sound[end:],
                sound[:8] + sound[at:], sound[:at] + long_ + sound[at + 4 :],
                sound[:at] + chunk(b"QQQQ", b"x") + sound[at:],
                sound[:at] + sound[8:at] + sound[at:], sound + dice.roll.randbytes(99), PNG, PNG + sound[8:16] * 3,
                sound[:at] + chunk(b"gAMA", b"") + chunk(b"pHYs", b"1") + chunk(b"cHRM", b"22") + chunk(b"sRGB",
                b"") + sound[at:],
            ]
        ),
    )  # fmt: skip


def _png_pixels(dice: Dice) -> Path:
    """Compressed data that are none, too short, too long, of unknown row filters."""
    rows = b"".join(bytes([dice.roll.randrange(9)]) + bytes(SIZE[0]) for _ in range(SIZE[1]))
    pixels = dice.roll.choice(
        [
            b"",
            b"x",
            dice.roll.randbytes(80),
            zlib.compress(rows),
            zlib.compress(bytes(9)),
            zlib.compress(rows)[:-4] + b"1234",
        ]
    )
    return dice.file("png", png(colour=0, pixels=pixels))


def _png_kind(dice: Dice) -> Path:
    """Depths and colour types that PNG does not have."""
    roll = dice.roll
    return dice.file(
        "png",
        png(
            depth=roll.choice([0, 3, 8, 16, 32, 255]), colour=roll.choice([1, 3, 5, 7, 255]), method=roll.choice([0, 1])
        ),
    )


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


def _orientation(dice: Dice) -> Path:
    return _with_exif(dice, exif_orientation(dice.roll.choice(ORIENTATIONS)))


def _exif_loops(dice: Dice) -> Path:
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


def _jpeg_size(dice: Dice) -> Path:
    """Another size in the frame header, or two frame headers."""
    data = dice.saved("JPEG")
    at = _frame(data)
    size = dice.roll.choice([(0, 0), (0, 24), (16, 0), (65535, 65535), (160, 24), (16, 240), (1, 1)])
    changed = data[: at + 5] + struct.pack(">HH", *size) + data[at + 9 :]
    if dice.roll.random() < 0.4:
        length = struct.unpack(">H", data[at + 2 : at + 4])[0]
        changed = data[:at] + changed[at : at + 2 + length] + data[at:]
    return dice.file("jpg", changed)


def _jpeg_progressive(dice: Dice) -> Path:
    data = dice.saved("JPEG", progressive=True)
    kept = len(data) if dice.roll.random() < 0.5 else dice.roll.randrange(_frame(data), len(data))
    return dice.file("jpg", data[:kept])


def _jpeg_scans(dice: Dice) -> Path:
    """Thousands of scans over the same pixels."""
    data = dice.saved("JPEG", progressive=True)
    at = data.index(b"\xff\xda")
    return dice.file("jpg", data[:at] + data[at : at + 60] * 2000 + data[at:])


def _jpeg_colours(dice: Dice) -> Path:
    mode = dice.roll.choice(["CMYK", "L", "YCbCr"])
    data = dice.saved("JPEG", photograph(dice.roll).convert(mode))
    if dice.roll.random() < 0.5:
        data = jpeg_with(data, b"Adobe\0\x64\0\0\0\0" + bytes([dice.roll.choice([0, 1, 2, 3, 255])]), 0xEE)
    return dice.file("jpg", data)


def _jpeg_process(dice: Dice) -> Path:
    """Arithmetic, lossless and hierarchical frames, and precisions of 12 and 0 bits."""
    data = bytearray(dice.saved("JPEG"))
    at = _frame(bytes(data))
    data[at + 1] = dice.roll.choice([0xC1, 0xC2, 0xC3, 0xC5, 0xC9, 0xCA, 0xCB, 0xCF, 0xF7])
    data[at + 4] = dice.roll.choice([8, 8, 12, 0, 16, 255])
    data[at + 9] = dice.roll.choice([3, 3, 1, 0, 2, 4, 255])
    return dice.file("jpg", bytes(data))


def _jpeg_tables(dice: Dice) -> Path:
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


def _jpeg_segments(dice: Dice) -> Path:
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


def _empty(dice: Dice) -> Path:
    return dice.file(dice.roll.choice(["png", "jpg", "tif", "webp"]), b"")


def _no_image(dice: Dice) -> Path:
    """Text, pages of an error, pointers of a large file store, programs and archives under an image's name."""
    content = dice.roll.choice(
        [
            b"hello\n", b"<!DOCTYPE html><html><body>404 Not Found</body></html>", b"\0" * 999, b"PK\3\4" + bytes(60),
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", b"\x7fELF" + bytes(90), b"{}", b"\n",
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", b"<svg/>",
            b"GRIB" + bytes(99),
            b"\xd7\xcd\xc6\x9a" + bytes(99), b"\x89HDF\r\n\x1a\n" + bytes(99), b"\x1b[2J\x1b]0;x\x07", b"%PDF-1.4\n",
        ]
    )  # fmt: skip
    return dice.file(dice.roll.choice(["png", "jpg", "bmp", "gif", "tga"]), content)


def _noise(dice: Dice) -> Path:
    """A format's first bytes, and noise behind them."""
    start = dice.roll.choice(
        [
            b"", PNG, b"\xff\xd8\xff\xe0", b"GIF89a", b"BM", b"II*\0\x08\0\0\0", b"MM\0+", b"RIFF\x40\0\0\0WEBPVP8 ",
            b"RIFF\x40\0\0\0WEBPVP8X",
            b"8BPS\0\1", b"P6 9 9 255\n", b"P7\n", b"Pf 9 9 -1\n", b"\0\0\1\0\1\0", b"\0\0\2\0\1\0", b"icns\0\0\0\x99",
            b"DDS |\0\0\0", b"\x01\xda\1\1\0\2",
            b"qoif\0\0\0\x10\0\0\0\x10\x04\0", b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51", b"\0\0\0\x1cftypavif",
            b"\0\0\0\x18ftypheic", b"/* XPM */",
            b"#define x_width 9\n#define x_height 9\n", b"\x0a\5\1\x08", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
            b"Y\xa6j\x95", b"FTEX\0\0\0\0", b"BLP2\1\0\0\0",
            b"SIMPLE  =                    T", b"VTF\0\7\0\0\0", b"gimp\0\0\0\1", b"DanM\0\0", b"CPP\0", b"PIXAR",
            b"\xb1\x68\xde\x3a", b"\x80\xe8\0\0", b"\x11\xaf",
        ]
    )  # fmt: skip
    suffix = dice.roll.choice(["png", "jpg", "tga", "tif", "bmp", "ppm"])
    return dice.file(suffix, start + dice.roll.randbytes(dice.roll.randrange(1, 400)))


def _tiff(dice: Dice) -> Path:
    """Directories in a circle, sizes and counts without end, strips that lie elsewhere, compressions that are none."""
    roll = dice.roll
    side = roll.choice([4, 4, 0, 2**31, 100_000])

    def entry(tag: int, value: int, count: int = 1) -> tuple[int, int, int, bytes]:
        return tag, 4, count, struct.pack("<I", value)

    entries = [
        entry(256, side), entry(257, roll.choice([4, side])), entry(258, roll.choice([8, 1, 16, 32, 3, 0])),
        entry(259, roll.choice([1, 1, 5, 6, 7, 8, 3, 4, 32773, 34712, 50000, 9])),
        entry(262, roll.choice([1, 0, 2, 3, 5, 8, 99])),
        entry(273, roll.choice([8, 0, 150, 2**32 - 1]), roll.choice([1, 1, 2**30])),
        entry(277, roll.choice([1, 1, 3, 0, 65535])),
        entry(278, roll.choice([4, 0, 2**32 - 1])), entry(279, roll.choice([16, 0, 2**31])),
    ]  # fmt: skip
    if roll.random() < 0.3:
        entries += [entry(322, roll.choice([0, 1, 2**30])), entry(323, 16), entry(324, 8, roll.choice([1, 2**28]))]
    if roll.random() < 0.2:
        entries.pop(roll.randrange(len(entries)))
    return dice.file("tif", tiff_ifd(entries, following=roll.choice([0, 8, 8, 2**32 - 1, 4])) + bytes(64))


def _tiff_sound(dice: Dice) -> Path:
    """TIFFs of every compression, of several pages, cut in places."""
    compression = dice.roll.choice(["raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg"])
    image = photograph(dice.roll)
    pages = {"save_all": True, "append_images": [image, image]} if dice.roll.random() < 0.3 else {}
    data = bytearray(dice.saved("TIFF", image, compression=compression, **pages))
    for _ in range(dice.roll.choice([0, 1, 5])):
        data[dice.roll.randrange(len(data))] ^= 1 << dice.roll.randrange(8)
    return dice.file("tif", bytes(data))


def _gif(dice: Dice) -> Path:
    frames = [dice.image() for _ in range(dice.roll.choice([1, 3]))]
    data = bytearray(dice.saved("GIF", frames[0], save_all=True, append_images=frames[1:]))
    how = dice.roll.choice(["sound", "size", "cut", "flip"])
    if how == "size":
        data[6:10] = struct.pack("<HH", *dice.roll.choice([(0, 0), (65535, 65535), (1, 1)]))
    elif how == "flip":
        data[dice.roll.randrange(6, len(data))] ^= 1 << dice.roll.randrange(8)
    return dice.file("gif", bytes(data[: dice.roll.randrange(6, len(data))] if how == "cut" else data))


def _webp(dice: Dice) -> Path:
    data = bytearray(dice.saved("WEBP", lossless=dice.roll.random() < 0.5))
    how = dice.roll.choice(["cut", "length", "flip", "chunk"])
    if how == "length":
        data[4:8] = struct.pack("<I", dice.roll.choice([0, 1, 2**31, 2**32 - 1]))
    elif how == "chunk":
        data[16:20] = struct.pack("<I", dice.roll.choice([0, 2**31, 2**32 - 10]))
    elif how == "flip":
        data[dice.roll.randrange(12, len(data))] ^= 1 << dice.roll.randrange(8)
    return dice.file("webp", bytes(data[: dice.roll.randrange(1, len(data))] if how == "cut" else data))


def _bmp(dice: Dice) -> Path:
    """Sizes below zero and without end, offsets and palettes elsewhere, run lengths over plain pixels."""
    data = bytearray(dice.saved("BMP"))
    roll = dice.roll
    for _ in range(roll.choice([1, 1, 2])):
        place, values = roll.choice(
            [
                (18, [-1, -24, 0, 2**31 - 1, -(2**31)]), (22, [-16, -(2**31), 0, 2**31 - 1, 10**5]),
                (10, [0, 2**31 - 1, -1, 54]),
                (14, [0, 12, 40, 124, 2**31 - 1]), (30, [1, 2, 3, 4, 5, 99]), (46, [-1, 2**31 - 1, 256, 0]),
            ]
        )  # fmt: skip
        data[place : place + 4] = struct.pack("<i", roll.choice(values))
    if roll.random() < 0.2:
        data[28:30] = struct.pack("<H", roll.choice([0, 1, 4, 16, 32, 64]))
    return dice.file("bmp", bytes(data))


def _netpbm(dice: Dice) -> Path:
    """Largest values that are odd, sizes of thousands of digits, text where numbers stand."""
    roll = dice.roll
    kind = roll.choice([b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"])
    side = roll.choice([b"4", b"4", b"0", b"-4", b"9" * 5000, b"100000", b"x", b"4#c\n"])
    largest = roll.choice([b"255", b"1", b"7", b"0", b"65535", b"65536", b"-1", b"99999999999", b"200", b"1e3"])
    pixels = roll.choice([bytes(96), b"1 2 3 4 " * 12, b"999 " * 48, b"", b"9" * 3000, b"\xff" * 96])
    return dice.file("pgm", b" ".join([kind, side, b"4", largest]) + b"\n" + pixels)


def _many_formats(dice: Dice) -> Path:
    """A sound file of a rare format, flipped or cut in places."""
    form, suffix = dice.roll.choice(
        [("TGA", "tga"), ("ICO", "png"), ("PCX", "png"), ("SGI", "png"), ("DDS", "png"), ("JPEG2000", "jp2"),
        ("AVIF", "avif"), ("ICNS", "png"), ("MPO", "jpg")]
    )  # fmt: skip
    image = photograph(dice.roll)
    data = bytearray(dice.saved(form, image.resize((16, 16)) if form in ("ICO", "ICNS") else image))
    how = dice.roll.choice(["sound", "cut", "flip", "flips"])
    for _ in range({"flip": 1, "flips": 20}.get(how, 0)):
        data[dice.roll.randrange(len(data))] ^= 1 << dice.roll.randrange(8)
    return dice.file(suffix, bytes(data[: dice.roll.randrange(1, len(data))] if how == "cut" else data))


def _special(make: Callable[[Path], None]) -> Callable[[Dice], Path]:
    def put(dice: Dice) -> Path:
        path = dice.free(dice.roll.choice(["png", "jpg"]))
        make(path)
        return path

    return put


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.write(PNG)
        file.truncate(1 << 40)


def _locked(path: Path) -> None:
    path.write_bytes(png())
    path.chmod(0)


def _named(*names: bytes) -> Callable[[Dice], Path]:
    """A sound file, or an empty one, under an odd name."""

    def put(dice: Dice) -> Path:
        name = b"%05d" % dice.seed + dice.roll.choice(names) + b".png"
        path = dice.folder / os.fsdecode(name)
        path.write_bytes(dice.saved("PNG") if dice.roll.random() < 0.6 else b"")
        return path

    return put


def _label_values(dice: Dice) -> Path:
    values = np.full(SIZE[::-1], dice.roll.choice([3, 200, 255]), np.uint8)
    if dice.roll.random() < 0.3:
        values = np.arange(SIZE[0] * SIZE[1], dtype=np.uint16).reshape(SIZE[::-1]) * 170
    return dice.file("png", dice.saved("PNG", Image.fromarray(values)))


def _label_mode(dice: Dice) -> Path:
    mode = dice.roll.choice(["RGB", "RGBA", "LA", "I", "F", "1", "P", "CMYK"])
    form = "TIFF" if mode in ("F", "I", "CMYK") else "PNG"
    return dice.file("tif" if form == "TIFF" else "png", dice.saved(form, label(dice.roll).convert(mode)))


def _label_size(dice: Dice) -> Path:
    size = dice.roll.choice([(1, 1), SIZE[::-1], (SIZE[0], SIZE[1] + 1), (300, 1)])
    return dice.file("png", dice.saved("PNG", label(dice.roll).resize(size, Image.Resampling.NEAREST)))


def _label_lossy(dice: Dice) -> Path:
    form = dice.roll.choice(["JPEG", "WEBP", "AVIF", "JPEG2000"])
    return dice.file("png", dice.saved(form, label(dice.roll).convert("RGB")))


def _sound(dice: Dice) -> Path:
    return dice.file("png", dice.saved("PNG"))


_KINDS: dict[str, Callable[[Dice], Path]] = {
    "PNG cut": _cut("PNG", "png"), "JPEG cut": _cut("JPEG", "jpg"),
    "PNG flips in the header": _flipped("PNG", "png", 0, 45),
    "PNG flips": _flipped("PNG", "png", 33, None), "JPEG flips in the header": _flipped("JPEG", "jpg", 2, 200),
    "JPEG flips": _flipped("JPEG", "jpg", 200, None), "PNG checksum": _png_crc, "PNG size": _png_size,
    "PNG without pixels": _png_empty,
    "PNG bomb": _png_bomb, "PNG 16 bits": _png_16_bit, "PNG few bits": _png_few_bits, "PNG palette": _png_palette,
    "PNG interlaced": _png_interlaced, "PNG animated": _png_animated, "PNG transparency": _png_transparency,
    "PNG text": _png_text,
    "PNG chunks": _png_chunks, "PNG pixels": _png_pixels, "PNG kind": _png_kind, "orientation": _orientation,
    "EXIF loops": _exif_loops,
    "JPEG size": _jpeg_size, "JPEG progressive": _jpeg_progressive, "JPEG scans": _jpeg_scans,
    "JPEG colours": _jpeg_colours,
    "JPEG process": _jpeg_process, "JPEG tables": _jpeg_tables, "JPEG segments": _jpeg_segments, "empty": _empty,
    "no image": _no_image,
    "noise": _noise, "TIFF directories": _tiff, "TIFF": _tiff_sound, "GIF": _gif, "WebP": _webp, "BMP": _bmp,
    "Netpbm": _netpbm,
    "rare format": _many_formats, "pipe": _special(os.mkfifo),
    "socket": _special(lambda path: os.mknod(path, stat.S_IFSOCK | 0o600)),
    "link to itself": _special(_loop), "link to nothing": _special(lambda path: path.symlink_to("not-there")),
    "link to a device": _special(lambda path: path.symlink_to("/dev/zero")), "folder": _special(Path.mkdir),
    "terabyte": _special(_sparse),
    "locked": _special(_locked), "name not UTF-8": _named(b"\xff\xfe", b"stra\xdfe", b"\xed\xa0\x80"),
    "name that acts": _named(b"\n", b"\x1b[2J\x1b[31m", b"a\r\tb", "\u202egnp".encode(), "\u2028".encode(), b"\x07",
    b"[bold red]x", b"\\x1b", b"%s{0}$HOME"),
    "long name": _named(b"x" * 240), "label values": _label_values, "label mode": _label_mode,
    "label size": _label_size,
    "label lossy": _label_lossy, "sound": _sound,
}  # fmt: skip

KINDS = tuple(_KINDS)
"""The kinds of mutation; seed n makes kind n modulo their number."""


def mutated(seed: int, folder: Path) -> Mutant:
    """Write one damaged file into `folder`, which is there; the same seed makes the same file, a name of its own.

    Every kind occurs within `len(KINDS)` seeds in a row. What stands for a label had the size `SIZE` and the values
    of `IDS` before it was spoilt, and what stands for an image that size. A kind may happen to leave a sound file.
    """
    kind = KINDS[seed % len(KINDS)]
    roll = random.Random(seed)
    is_label = kind.startswith("label") or roll.random() < 0.3
    return Mutant(kind, _KINDS[kind](Dice(roll, seed, folder, is_label)), is_label)


def data_set(seeds: Sequence[int], folder: Path, num_sound: int = 2) -> list[Mutant]:
    """A data set of layout `folder` around the mutants of `seeds`: images/, labels/ and recipe.toml in `folder`.

    Each mutant has a sound partner, and `num_sound` pairs are sound. The recipe's source and target are both this
    folder (`fastuda data check folder FOLDER --recipe FOLDER/recipe.toml --domain source`).
    """
    places = {False: folder / "images", True: folder / "labels"}
    for place in places.values():
        place.mkdir(parents=True)
    roll = random.Random(0)
    for number in range(num_sound):
        photograph(roll).save(places[False] / f"sound{number}.png")
        label(roll).save(places[True] / f"sound{number}.png")
    mutants = []
    for seed in seeds:
        is_label = mutated_is_label(seed)
        mutant = mutated(seed, places[is_label])
        partner = places[not is_label] / f"{mutant.path.stem}.png"
        (photograph if is_label else label)(roll).save(partner, "PNG")
        mutants.append(mutant)
    ids = ", ".join(f'{value} = "{name}"' for value, name in IDS.items())
    files = 'layout = "folder"\nimages = "images/*"\nlabels = "labels/*"\n'
    (folder / "recipe.toml").write_text(
        f'[classes]\nnames = ["road", "car"]\n[source]\n{files}ids = {{ {ids} }}\n'
        f'[target]\n{files}val_images = "images/*"\nval_labels = "labels/*"\nids = {{ {ids} }}\n'
    )
    return mutants


def mutated_is_label(seed: int) -> bool:
    """Whether the mutant of this seed stands for a label."""
    return KINDS[seed % len(KINDS)].startswith("label") or random.Random(seed).random() < 0.3
