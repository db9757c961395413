"""What can be wrong with a PNG: one damaged file a call."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from faults.image_file import PNG, SIZE, Dice, chunk, png


def png_crc(dice: Dice) -> Path:
    data = dice.saved("PNG")
    name = dice.roll.choice([b"IHDR", b"IDAT", b"IEND"])
    at = data.index(name)
    end = at + 4 + struct.unpack(">I", data[at - 4 : at])[0]
    return dice.file("png", data[:end] + dice.roll.randbytes(4) + data[end + 4 :])


def png_size(dice: Dice) -> Path:
    """Another size in front than the data has."""
    size = dice.roll.choice([(SIZE[0], SIZE[1] * 9), (SIZE[0] * 9, SIZE[1]), (3, 3), (SIZE[0] + 1, SIZE[1])])
    colour = 0 if dice.is_label else 2
    return dice.file("png", png(size, colour=colour, pixels=zlib.compress(bytes(73 * 16))))


def png_empty(dice: Dice) -> Path:
    return dice.file("png", png(dice.roll.choice([(0, 0), (0, 5), (5, 0)]), colour=0 if dice.is_label else 2))


def png_bomb(dice: Dice) -> Path:
    """A header that asks for gigabytes and terabytes."""
    size = dice.roll.choice([(100_000, 100_000), (2**31 - 1, 2**31 - 1), (2**32 - 1, 1), (20_000, 20_000)])
    return dice.file("png", png(size, dice.roll.choice([1, 8, 16]), dice.roll.choice([0, 2])))


def png_16_bit(dice: Dice) -> Path:
    return dice.file("png", png(depth=16, colour=dice.roll.choice([0, 2, 4, 6])))


def png_few_bits(dice: Dice) -> Path:
    depth = dice.roll.choice([1, 2, 4])
    palette = [chunk(b"PLTE", bytes(3 * 2**depth))]
    colour = dice.roll.choice([0, 3])
    return dice.file("png", png(depth=depth, colour=colour, before=palette if colour else []))


def png_palette(dice: Dice) -> Path:
    """Palettes that are missing, short, long, of half an entry, twice, behind the pixels."""
    pixels = zlib.compress(b"".join(b"\0" + dice.roll.randbytes(SIZE[0]) for _ in range(SIZE[1])))
    several = dice.roll.choice([[], [b""], [bytes(3)], [bytes(7)], [bytes(3 * 300)], [bytes(9), bytes(768)]])
    palettes = [chunk(b"PLTE", one) for one in several]
    behind = dice.roll.random() < 0.2
    return dice.file(
        "png", png(colour=3, before=[] if behind else palettes, pixels=pixels, behind=palettes if behind else [])
    )


def png_interlaced(dice: Dice) -> Path:
    colour = 0 if dice.is_label else 2
    return dice.file("png", png(colour=colour, interlaced=dice.roll.choice([1, 1, 2, 255])))


def png_animated(dice: Dice) -> Path:
    if dice.roll.random() < 0.5:
        frames = [dice.image() for _ in range(3)]
        return dice.file("png", dice.saved("PNG", frames[0], save_all=True, append_images=frames[1:]))
    count = dice.roll.choice([0, 1, 2, 10**6, 2**32 - 1])
    control = struct.pack(">IIIIIHHBB", 0, *dice.roll.choice([SIZE, (0, 0), (9**9, 9**9)]), 5, 5, 1, 0, 9, 9)
    return dice.file(
        "png",
        png(before=[chunk(b"acTL", struct.pack(">II", count, 0)), chunk(b"fcTL", control[: dice.roll.randrange(27)])]),
    )


def png_transparency(dice: Dice) -> Path:
    content = dice.roll.choice([b"", b"\0", bytes(300), bytes(5), b"\xff" * 6])
    colour = dice.roll.choice([0, 2, 3, 4, 6])
    palette = [chunk(b"PLTE", bytes(768))] if colour == 3 else []
    return dice.file("png", png(colour=colour, before=[*palette, chunk(b"tRNS", content)]))


def png_text(dice: Dice) -> Path:
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


def png_chunks(dice: Dice) -> Path:
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


def png_pixels(dice: Dice) -> Path:
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


def png_kind(dice: Dice) -> Path:
    """Depths and colour types that PNG does not have."""
    roll = dice.roll
    return dice.file(
        "png",
        png(
            depth=roll.choice([0, 3, 8, 16, 32, 255]), colour=roll.choice([1, 3, 5, 7, 255]), method=roll.choice([0, 1])
        ),
    )
