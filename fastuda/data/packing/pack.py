"""A packed data set: the ready-to-decode files that `prepare` leaves in the cache, each held against its checksum."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastuda.classes import IGNORE_INDEX
from fastuda.data.reading.faults import SampleError
from fastuda.data.reading.images import open_image
from fastuda.data.reading.jpeg import jpeg_size
from fastuda.data.reading.listing import LeftOut
from fastuda.data.reading.png import png_size

PackFormat = Literal["png", "jpeg", "raw"]
PackedKind = Literal["images", "labels"]
FORMAT_VERSION = 3
INDEX, JOURNAL = "index.json", "journal.jsonl"
SHARDS = re.compile(r"shards-[\d.e+-]+")
"""Folders of the same samples laid out in shards."""
IMAGES: PackedKind = "images"
LABELS: PackedKind = "labels"
KINDS: tuple[PackedKind, PackedKind] = (IMAGES, LABELS)


@dataclass(frozen=True)
class Record:
    """One packed sample: what its source files were, and what was written for them.

    `source` holds [bytes, modification time in ns] of the image and the label file, `checksums` their
    CRC-32s, `image` and `label` the packed files' names, `packed_bytes` their sizes, `packed_checksums` their
    CRC-32s.
    """

    name: str
    source: list[int]
    checksums: list[int]
    image: str
    label: str | None
    packed_bytes: list[int]
    packed_checksums: list[int]
    pixels: list[int] | None = None
    """Pixels of the packed label by train id, the ignored last; None without a label."""

    def file(self, kind: PackedKind) -> str | None:
        """The packed file's name; None for a label that there is none of."""
        return self.image if kind == IMAGES else self.label


Mend = Callable[[Record, PackedKind, str], tuple[bytes, Record]]
"""Makes a sample's packed file anew from its source, given what is wrong with it: the file's bytes, and the record that
then holds. SampleError when that cannot be done."""


@dataclass
class Packed:
    """A data set packed at one size; `names[i]` is sample i, and the arrays are read from disk when asked for.

    Whatever is read is held against the checksum that was taken when it was written. A file that is damaged or gone is
    made anew from its source where `mend` is given, and reading goes on; where it cannot be, SampleError names it.
    """

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
    own_label_size: bool = False
    """Whether labels keep their own size."""
    mend: Mend | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "mend": None}

    def single_files(self) -> Packed:
        """The same pack, read file by file."""
        return self

    def read_ahead(self, samples: Iterable[int]) -> None:
        """Begin to read what is needed soon, where that is worth anything: single files are read when they are."""

    def label_pixels(self) -> NDArray[np.int64]:
        """Pixels by sample and train id, [N, C + 1], the ignored last. Raises ValueError without labels."""
        if any(record.pixels is None for record in self.records):
            raise ValueError(f"{self.folder} was packed without labels")
        return np.array([record.pixels for record in self.records], np.int64)

    def image_bytes(self, index: int) -> NDArray[np.uint8]:
        """The packed image file, 1-D uint8: an encoded PNG or JPEG, or for `raw` its [H, W, 3] pixels.

        Raises SampleError for a file that is damaged and cannot be made anew; so do the other two.
        """
        return self._read(index, IMAGES)

    def label_bytes(self, index: int) -> NDArray[np.uint8]:
        """The packed label file, 1-D uint8: an encoded grey PNG, or its [H, W] pixels if stored `raw`."""
        return self._read(index, LABELS)

    def label_array(self, index: int) -> NDArray[np.uint8]:
        """The label decoded: train ids [H, W] uint8, 255 ignored."""
        return self.decoded_label(index, self._read(index, LABELS))

    def decoded_label(self, index: int, content: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What `label_bytes` gave, decoded likewise."""
        path = self.path(index, LABELS)
        if path.suffix == ".raw":
            return content.reshape(self.size[1], self.size[0])
        try:
            return np.asarray(open_image(content.tobytes()))
        except Exception as error:  # Pillow's plugins raise whatever they meet, and the bytes are as they were written
            raise SampleError("undecodable", path, f"cannot be decoded ({error}); {_REMAKE}") from error

    def path(self, index: int, kind: PackedKind) -> Path:
        """Where a sample's packed file lies; ValueError for labels where there are none."""
        name = self.records[index].file(kind)
        if name is None:
            raise ValueError(f"{self.folder} was packed without labels")
        return self.folder / kind / name

    def _read(self, index: int, kind: PackedKind) -> NDArray[np.uint8]:
        path, record = self.path(index, kind), self.records[index]
        found = self._as_written(path, record, kind)
        if not isinstance(found, str):
            return found
        if self.mend is None:
            raise SampleError("damaged", path, f"damaged since it was packed (it {found}); {_REMAKE}")
        made, self.records[index] = self.mend(record, kind, found)
        return np.frombuffer(made, np.uint8)

    def _as_written(self, path: Path, record: Record, kind: PackedKind) -> NDArray[np.uint8] | str:
        """A file's bytes, or in words how they differ from what was written or from what can be read at all."""
        try:
            content: NDArray[np.uint8] = np.fromfile(path, np.uint8)
        except FileNotFoundError:
            return "is gone"
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        return self.wrong_with(content, record, kind) or content

    def written_bytes(self, index: int, kind: PackedKind) -> int:
        """How long a sample's packed file was when it was written."""
        return self.records[index].packed_bytes[KINDS.index(kind)]

    def wrong_with(self, content: NDArray[np.uint8], record: Record, kind: PackedKind) -> str | None:
        """In words how a packed file's bytes differ from what was written; None where they do not."""
        place = KINDS.index(kind)
        if len(content) != record.packed_bytes[place]:
            return f"has {len(content)} bytes, and {record.packed_bytes[place]} were written"
        if zlib.crc32(content.data) != record.packed_checksums[place]:
            return "has other bytes than were written"
        # A picture of another size would take DALI's batches apart.
        suffix = Path(record.file(kind) or "").suffix
        found = self._stated_size(content, suffix, 3 if kind == IMAGES else 1)
        free = kind == LABELS and self.own_label_size
        if found is None or (found != self.size and not free):
            stated = "no size" if found is None else "{}x{}".format(*found)
            return f"says {stated}, and {self.size[0]}x{self.size[1]} is the pack's"
        return None

    def _stated_size(self, content: NDArray[np.uint8], suffix: str, channels: int) -> tuple[int, int] | None:
        if suffix == ".raw":
            return self.size if len(content) == channels * self.size[0] * self.size[1] else None
        return png_size(content) if suffix == ".png" else jpeg_size(content.data)


_REMAKE = "delete the packed data set's folder and run again"


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
