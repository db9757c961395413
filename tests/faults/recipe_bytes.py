"""What disks, editors and other systems do to a recipe's bytes."""

from __future__ import annotations

import codecs
import random
from collections.abc import Callable


def _flips(roll: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(roll.choice([1, 1, 1, 20])):
        changed[roll.randrange(len(changed))] ^= 1 << roll.randrange(8)
    return bytes(changed)


def _utf_16(roll: random.Random, data: bytes) -> bytes:
    coded = data.decode().encode(roll.choice(["utf-16", "utf-16-le", "utf-16-be", "utf-32"]))
    return coded[: len(coded) - roll.choice([0, 0, 1])]


BYTES: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "flips": _flips, "cut": lambda roll, data: data[: roll.randrange(len(data))],
    "not UTF-8": lambda roll,
    data: data + roll.choice([b'\ndescription = "\xff"', b"\xc3", b"# \xed\xa0\x80\n", b"\xe4\n"]),
    "UTF-16": _utf_16, "byte order mark": lambda roll,
    data: roll.choice([codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF8 * 2]) + data,
    "noise": lambda roll, data: roll.randbytes(roll.randrange(1, 400)), "large": lambda roll,
    data: data + roll.choice([b"# x\n", b"\n", b"x"]) * (1 << 20),
    "many tables": lambda roll, data: data + b"".join(b"[a%d.b]\nc = 1\n" % number for number in range(2000)),
    "line ends": lambda roll, data: data.replace(b"\n", roll.choice([b"\r\n", b"\r", b"\n\r"])),
    "lines swapped": lambda roll, data: b"\n".join(roll.sample(data.split(b"\n"), data.count(b"\n"))),
}  # fmt: skip
