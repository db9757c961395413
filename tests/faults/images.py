"""Image and label files as cameras, tools, disks and strangers leave them: one damaged file a seed."""

from __future__ import annotations

import os
import random
import stat
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from faults.image_file import IDS, PNG, SIZE, Dice, Mutant, label, photograph, png, tiff_ifd
from faults.jpeg_mutants import (
    exif_loops,
    jpeg_colours,
    jpeg_process,
    jpeg_progressive,
    jpeg_scans,
    jpeg_segments,
    jpeg_size,
    jpeg_tables,
    orientation,
)
from faults.png_mutants import (
    png_16_bit,
    png_animated,
    png_bomb,
    png_chunks,
    png_crc,
    png_empty,
    png_few_bits,
    png_interlaced,
    png_kind,
    png_palette,
    png_pixels,
    png_size,
    png_text,
    png_transparency,
)
from PIL import Image


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
    "JPEG flips": _flipped("JPEG", "jpg", 200, None), "PNG checksum": png_crc, "PNG size": png_size,
    "PNG without pixels": png_empty,
    "PNG bomb": png_bomb, "PNG 16 bits": png_16_bit, "PNG few bits": png_few_bits, "PNG palette": png_palette,
    "PNG interlaced": png_interlaced, "PNG animated": png_animated, "PNG transparency": png_transparency,
    "PNG text": png_text,
    "PNG chunks": png_chunks, "PNG pixels": png_pixels, "PNG kind": png_kind, "orientation": orientation,
    "EXIF loops": exif_loops,
    "JPEG size": jpeg_size, "JPEG progressive": jpeg_progressive, "JPEG scans": jpeg_scans,
    "JPEG colours": jpeg_colours,
    "JPEG process": jpeg_process, "JPEG tables": jpeg_tables, "JPEG segments": jpeg_segments, "empty": _empty,
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
