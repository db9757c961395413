"""Damage to a packed data set, as disks, other programs and people do it: one thing a seed."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fastuda.data.reading.png import encode_png


def damaged(seed: int, folder: Path) -> str:
    """Damage one thing in a packed folder; returns what, the kind first, as in `bit flip: images/00003.png`.

    The seed chooses kind (in turn) and file; the folder of a pack without labels has its images damaged instead.
    """
    rng = random.Random(seed)
    kind = list(_KINDS)[seed % len(_KINDS)]
    return f"{kind}: {_KINDS[kind](rng, folder)}"


def kind_of(seed: int) -> str:
    """What `damaged` does at this seed."""
    return list(_KINDS)[seed % len(_KINDS)]


def _file(rng: random.Random, folder: Path, kind: str) -> Path:
    files = sorted((folder / kind).iterdir()) or sorted((folder / "images").iterdir())
    return rng.choice(files)


def _bit_flip(kind: str) -> Callable[[random.Random, Path], str]:
    def damage(rng: random.Random, folder: Path) -> str:
        return _flipped(rng, _file(rng, folder, kind))

    return damage


def _flipped(rng: random.Random, path: Path) -> str:
    content = bytearray(path.read_bytes())
    place = rng.randrange(len(content))
    content[place] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return f"{_named(path)}, byte {place}"


def _index_flip(rng: random.Random, folder: Path) -> str:
    return _flipped(rng, folder / "index.json")


def _index_digit(rng: random.Random, folder: Path) -> str:
    path = folder / "index.json"
    content = bytearray(path.read_bytes())
    place = rng.choice([i for i, byte in enumerate(content) if chr(byte).isdigit()])
    content[place] = ord("0") + (content[place] - ord("0") + rng.randrange(1, 10)) % 10
    path.write_bytes(content)
    return f"index.json, byte {place}"


def _truncated(kind: str) -> Callable[[random.Random, Path], str]:
    def damage(rng: random.Random, folder: Path) -> str:
        path = _file(rng, folder, kind)
        content = path.read_bytes()
        kept = rng.randrange(len(content))
        path.write_bytes(content[:kept])
        return f"{_named(path)}, {kept} of {len(content)} bytes"

    return damage


def _index_truncated(rng: random.Random, folder: Path) -> str:
    path = folder / "index.json"
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])
    return "index.json"


def _deleted(kind: str) -> Callable[[random.Random, Path], str]:
    def damage(rng: random.Random, folder: Path) -> str:
        path = _file(rng, folder, kind)
        path.unlink()
        return _named(path)

    return damage


def _index_deleted(rng: random.Random, folder: Path) -> str:
    (folder / "index.json").unlink()
    return "index.json"


def _index_foreign(rng: random.Random, folder: Path) -> str:
    (folder / "index.json").write_text('{"samples": []}')
    return "index.json"


def _zeroed(rng: random.Random, folder: Path) -> str:
    """As after a power cut: the right size, and zeros where nothing was written yet."""
    path = _file(rng, folder, "images")
    size = path.stat().st_size
    kept = rng.randrange(size // 2)
    path.write_bytes(path.read_bytes()[:kept] + bytes(size - kept))
    return f"{_named(path)} from byte {kept} on"


def _swapped(rng: random.Random, folder: Path) -> str:
    one, other = rng.sample(sorted((folder / "images").iterdir()), 2)
    contents = one.read_bytes(), other.read_bytes()
    other.write_bytes(contents[0])
    one.write_bytes(contents[1])
    return f"{_named(one)} and {_named(other)}"


def _other_size(kind: str) -> Callable[[random.Random, Path], str]:
    def damage(rng: random.Random, folder: Path) -> str:
        path = _file(rng, folder, kind)
        shape = (rng.randrange(1, 9), rng.randrange(1, 9), *((3,) if kind == "images" else ()))
        path.write_bytes(encode_png(np.zeros(shape, np.uint8)))
        return f"{_named(path)} is a PNG of {shape[1]}x{shape[0]}"

    return damage


def _foreign_label(rng: random.Random, folder: Path) -> str:
    files = sorted((folder / "labels").iterdir()) or sorted((folder / "images").iterdir())
    path, other = rng.sample(files, 2)
    shutil.copy(other, path)
    return f"{_named(path)} is {_named(other)}"


def _labels_deleted(rng: random.Random, folder: Path) -> str:
    shutil.rmtree(folder / "labels")
    return "labels/"


def _images_deleted(rng: random.Random, folder: Path) -> str:
    shutil.rmtree(folder / "images")
    return "images/"


def _all_deleted(rng: random.Random, folder: Path) -> str:
    shutil.rmtree(folder)
    return folder.name


def _named(path: Path) -> str:
    return f"{path.parent.name}/{path.name}" if path.parent.name in ("images", "labels") else path.name


_KINDS: dict[str, Callable[[random.Random, Path], str]] = {
    "image bit flip": _bit_flip("images"),
    "label bit flip": _bit_flip("labels"),
    "index bit flip": _index_flip,
    "index digit": _index_digit,
    "image truncated": _truncated("images"),
    "label truncated": _truncated("labels"),
    "index truncated": _index_truncated,
    "image deleted": _deleted("images"),
    "label deleted": _deleted("labels"),
    "index deleted": _index_deleted,
    "index foreign": _index_foreign,
    "zeros": _zeroed,
    "images swapped": _swapped,
    "image of another size": _other_size("images"),
    "label of another size": _other_size("labels"),
    "foreign label": _foreign_label,
    "labels deleted": _labels_deleted,
    "images deleted": _images_deleted,
    "folder deleted": _all_deleted,
}
