"""Packs laid out a second time, in a few large files that are read from beginning to end."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastuda.data.packing.pack import IMAGES, KINDS, LABELS, Packed, PackedKind
from fastuda.errors import FastudaError
from fastuda.files.disk import make_folder, require_free, sweep, write_atomic
from fastuda.files.lock import Look

log = logging.getLogger(__name__)

INDEX = "index.json"
_VERSION = 1
_BLOCK, _RECORD = 512, 10240
"""Of a tar: what headers and contents are rounded up to, and the whole file."""


@dataclass(frozen=True)
class Layout:
    """Which samples lie in which shard, and where; planned from the pack alone, so that it needs no shard to be known.

    A shard is a plain tar: 0000017.png is sample 17's image and 0000017.label.png its label, one behind the other.
    Samples are dealt to shards in a fixed shuffled order, so that each shard is of all of the data.
    """

    folder: Path
    members: tuple[NDArray[np.int64], ...]
    """By shard the numbers of its samples, in their order."""
    places: dict[tuple[int, PackedKind], tuple[int, int]]
    """By sample and kind: shard, and the first byte of the packed file in it."""
    sizes: tuple[int, ...]
    """Bytes of each shard."""

    @classmethod
    def of(cls, packed: Packed, shard_mb: float) -> Layout:
        """Of a pack, in shards of about so many mebibytes."""
        members: list[list[int]] = []
        places: dict[tuple[int, PackedKind], tuple[int, int]] = {}
        ends: list[int] = []
        for sample in map(int, np.random.default_rng(0).permutation(len(packed))):
            if not members or ends[-1] >= shard_mb * 2**20:
                members.append([])
                ends.append(0)
            members[-1].append(sample)
            for kind in _kinds(packed, sample):
                places[sample, kind] = len(members) - 1, ends[-1] + _BLOCK
                size = packed.records[sample].packed_bytes[KINDS.index(kind)]
                ends[-1] += _BLOCK + size + -size % _BLOCK
        sizes = tuple(end + 2 * _BLOCK + -(end + 2 * _BLOCK) % _RECORD for end in ends)
        folder = packed.folder / f"shards-{shard_mb:g}"
        return cls(folder, tuple(np.array(one, np.int64) for one in members), places, sizes)

    def path(self, shard: int) -> Path:
        """A shard's file."""
        return self.folder / f"{shard:05d}.tar"

    def missing(self) -> list[int]:
        """Shards that are not there, or not whole."""
        return [shard for shard, size in enumerate(self.sizes) if _size(self.path(shard)) != size]

    def index(self, packed: Packed) -> bytes:
        """What stands beside the shards: of which pack they are. Shards beside another index are of another pack."""
        content = {
            "version": _VERSION,
            "fingerprint": packed.fingerprint,
            "checksums": [record.packed_checksums for record in packed.records],
            "sizes": self.sizes,
        }
        return json.dumps(content).encode() + b"\n"


def lay_out(packed: Packed, shard_mb: float, look: Look | None = None) -> Layout:
    """The pack's shards, those written that are missing; the pack's folder is held by the caller.

    `look` is called between shards, and may raise: what is written by then stays.

    What a killed call has finished stays; of another state of the pack nothing does. Where the
    folder cannot be written, whole shards are used as they are. FastudaError when they are not whole there, when the
    disk has too little room, and for a sample that can be neither read nor made anew.
    """
    layout = Layout.of(packed, shard_mb)
    index = layout.index(packed)
    known = _read(layout.folder / INDEX) == index
    missing = layout.missing() if known else [*range(len(layout.sizes))]
    if not missing:
        return layout
    if not os.access(packed.folder, os.W_OK):
        raise FastudaError(
            f"{layout.folder}: {len(missing)} of {len(layout.sizes)} shards are missing, and the folder cannot be "
            "written: run `fastuda data prepare` where it can, or read single files (--set data.shard_mb=0)"
        )
    require_free(packed.folder, sum(layout.sizes[shard] for shard in missing), f"{len(missing)} shards")
    if not known:
        shutil.rmtree(layout.folder, ignore_errors=True)
        make_folder(layout.folder)
        write_atomic(layout.folder / INDEX, index, durable=True)
    sweep(layout.folder)
    log.info("%s: laying out %d of %d shards", layout.folder, len(missing), len(layout.sizes))
    for shard in missing:
        if look is not None:
            look()
        write_atomic(layout.path(shard), _content(packed, layout, shard), durable=True)
    return layout


def _content(packed: Packed, layout: Layout, shard: int) -> bytes:
    """A shard's bytes, of the pack's files, each held against its checksum."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in map(int, layout.members[shard]):
            for kind in _kinds(packed, sample):
                content = (packed.image_bytes if kind == IMAGES else packed.label_bytes)(sample).tobytes()
                name = packed.records[sample].file(kind) or ""
                told = tarfile.TarInfo(f"{sample:07d}{'.label' if kind == LABELS else ''}{Path(name).suffix}")
                told.size, told.mode = len(content), 0o644
                tar.addfile(told, io.BytesIO(content))
    return whole.getvalue()


def _kinds(packed: Packed, sample: int) -> list[PackedKind]:
    return [kind for kind in KINDS if packed.records[sample].file(kind) is not None]


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
