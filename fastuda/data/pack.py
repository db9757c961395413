"""A packed data set: the folder of ready-to-decode files that `prepare` leaves in the cache, and its index."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastuda.classes import IGNORE_INDEX
from fastuda.data.images import open_image
from fastuda.data.listing import LeftOut
from fastuda.errors import FastudaError

PackFormat = Literal["png", "jpeg", "raw"]
FORMAT_VERSION = 2
INDEX, JOURNAL, LOCK = "index.json", "journal.jsonl", ".lock"
IMAGES, LABELS = "images", "labels"


@dataclass(frozen=True)
class Record:
    """One packed sample: what its source files were, and what was written for them.

    `source` holds [bytes, modification time in ns] of the image and the label file, `checksums` their
    CRC-32s, `image` and `label` the packed files' names, `packed_bytes` their sizes.
    """

    name: str
    source: list[int]
    checksums: list[int]
    image: str
    label: str | None
    packed_bytes: list[int]
    pixels: list[int] | None = None
    """Pixels of the packed label by train id, the ignored last; None without a label."""


@dataclass
class Packed:
    """A data set packed at one size; `names[i]` is sample i, and the arrays are read from disk when asked for."""

    folder: Path
    names: list[str]
    size: tuple[int, int]
    """Width and height of every image, and of every label unless labels keep their own size."""
    fingerprint: str
    """Hash of names, source contents and options; equal on any machine that packed the same data alike."""
    left_out: LeftOut
    """How many files and samples are not in it, and why."""
    format: PackFormat
    records: list[Record] = field(repr=False)

    def __len__(self) -> int:
        return len(self.names)

    def label_pixels(self) -> NDArray[np.int64]:
        """Pixels by sample and train id, [N, C + 1], the ignored last. Raises ValueError without labels."""
        if any(record.pixels is None for record in self.records):
            raise ValueError(f"{self.folder} was packed without labels")
        return np.array([record.pixels for record in self.records], np.int64)

    def image_bytes(self, index: int) -> NDArray[np.uint8]:
        """The packed image file, 1-D uint8: an encoded PNG or JPEG, or for `raw` its [H, W, 3] pixels."""
        return np.fromfile(self.folder / IMAGES / self.records[index].image, np.uint8)

    def label_bytes(self, index: int) -> NDArray[np.uint8]:
        """The packed label file, 1-D uint8: an encoded grey PNG, or its [H, W] pixels if stored `raw`."""
        return np.fromfile(self._label_path(index), np.uint8)

    def label_array(self, index: int) -> NDArray[np.uint8]:
        """The label decoded: train ids [H, W] uint8, 255 ignored."""
        path = self._label_path(index)
        if path.suffix == ".raw":
            return np.fromfile(path, np.uint8).reshape(self.size[1], self.size[0])
        return np.asarray(open_image(path.read_bytes()))

    def _label_path(self, index: int) -> Path:
        name = self.records[index].label
        if name is None:
            raise ValueError(f"{self.folder} was packed without labels")
        return self.folder / LABELS / name


def count_pixels(train_ids: NDArray[np.uint8], num_classes: int) -> list[int]:
    """Pixels of a label [H, W] by train id, the ignored last."""
    histogram = Image.fromarray(train_ids).histogram()
    return [*histogram[:num_classes], histogram[IGNORE_INDEX]]


def fingerprint(options: dict[str, Any], records: Iterable[Record]) -> str:
    """SHA-256 over the options and every sample's name and source checksums."""
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
    for record in records:
        digest.update(json.dumps([record.name, record.checksums]).encode())
    return digest.hexdigest()


def is_whole(folder: Path, record: Record) -> bool:
    """Whether the record's packed files are there, at the sizes they were written with."""
    paths = [folder / IMAGES / record.image]
    if record.label is not None:
        paths.append(folder / LABELS / record.label)
    try:
        return [path.stat().st_size for path in paths] == record.packed_bytes
    except FileNotFoundError:
        return False


def refuse_foreign(folder: Path) -> None:
    """FastudaError naming the first entry of `folder` that no pack would hold."""
    ours = {INDEX, JOURNAL, LOCK, IMAGES, LABELS}
    for entry in sorted(folder.iterdir()) if folder.exists() else []:
        if entry.name not in ours and not entry.name.endswith(".part"):
            raise FastudaError(
                f"{folder}: holds {entry.name}, which is no part of a packed data set; "
                "move it away, or delete the folder, and run again"
            )


def read_index(folder: Path, key: dict[str, Any]) -> tuple[str, list[Record]] | None:
    """Fingerprint and records of a finished pack; None when there is none; FastudaError when it is broken.

    `key` says what is packed and how; an index of anything else is refused.
    """
    path = folder / INDEX
    try:
        content = json.loads(path.read_text())
        found, digest = content["key"], str(content["fingerprint"])
        records = [Record(**record) for record in content["samples"]]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FastudaError(f"{path}: broken index of a packed data set; delete {folder} and run again") from error
    if found != json.loads(json.dumps(key)):
        raise FastudaError(f"{path}: belongs to other data or options; delete {folder} and run again")
    return digest, records


def index_content(key: dict[str, Any], digest: str, records: Iterable[Record]) -> bytes:
    """The bytes of index.json, whose presence says that a pack is complete."""
    content = {"key": key, "fingerprint": digest, "samples": [asdict(record) for record in records]}
    return json.dumps(content).encode()


def read_journal(folder: Path) -> list[Record]:
    """Records of the samples that an unfinished run completed; a torn last line is dropped."""
    try:
        lines = (folder / JOURNAL).read_text().splitlines()
    except FileNotFoundError:
        return []
    records = []
    for line in lines:
        try:
            records.append(Record(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return records


def journal_line(record: Record) -> bytes:
    """The line of journal.jsonl that marks one sample as done."""
    return json.dumps(asdict(record)).encode() + b"\n"
