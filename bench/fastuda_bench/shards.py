"""Single files or shards: an epoch of a packed domain, read in training's order from different kinds of storage.

Read as training reads: each file held against its checksum, one after another in one thread, shards ahead in another.
From memory all files are in the page cache; from the disk none is. What a network adds is simulated, by a wait for
every request, one to open a file and one a MiB of it: the time that a request takes to go and come, and nothing of how
much a link or a server can carry.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from fastuda.data.loading.sampling import Schedule, Shards
from fastuda.data.packing.pack import Packed, PackedKind, Record
from fastuda.data.packing.prepare import prepare
from fastuda.data.packing.sharded import Sharded, ShardReader
from fastuda.layouts import GTA5
from fastuda.recipe import Data, Domain, Recipe
from fastuda_bench.prepare import write_pairs
from fastuda_bench.results import Row, gpu, stamp, summary

SHARD_MB = 64.0
_MIB = 2**20


@dataclass(frozen=True)
class Storage:
    """Where packs lie."""

    name: str
    cold: bool = False
    """Whether the page cache is emptied of them first."""
    request_ms: float = 0.0
    """What each request is made to take."""


STORAGES = (
    Storage("memory"),
    Storage("this machine's disk", cold=True),
    Storage("0.5 ms a request, as of a network file system", request_ms=0.5),
    Storage("20 ms a request, as of object storage", request_ms=20.0),
)


@dataclass
class _FarFiles(Packed):
    """Single files behind a network."""

    request_ms: float = 0.0

    def _as_written(self, path: Path, record: Record, kind: PackedKind) -> NDArray[np.uint8] | str:
        found = super()._as_written(path, record, kind)
        _wait(len(found), self.request_ms)
        return found


class _FarShards(ShardReader):
    """Shards behind a network."""

    request_ms = 0.0

    def _read(self, shard: int) -> NDArray[np.uint8] | None:
        found = super()._read(shard)
        _wait(0 if found is None else len(found), self.request_ms)
        return found


def _wait(num_bytes: int, request_ms: float) -> None:
    if request_ms:
        time.sleep(request_ms / 1000 * (1 + math.ceil(num_bytes / _MIB)))


def shard_rows(
    recipe: Recipe, folder: Path, *, num_samples: int, repeats: int, report: Callable[[str], None] = lambda line: None
) -> list[Row]:
    """A row a storage and layout: samples a second over an epoch of the source domain.

    Pairs are made at `views.source_size` and packed as the recipe has it. A repeat goes once through all rows.
    """
    write_pairs(folder / "pairs", num_samples, size=recipe.views.source_size)
    domain = Domain(layout=GTA5.name, root=folder / "pairs")
    data = Data(cache=folder / "cache", pack=recipe.data.pack, shard_mb=SHARD_MB, shards_mixed=recipe.data.shards_mixed)
    packed = prepare(
        domain, "train", size=recipe.views.source_size, labels="resized", classes=recipe.classes.build(), data=data
    )
    assert isinstance(packed, Sharded)
    report(f"{num_samples} samples in {len(packed.layout.members)} shards")
    rates: dict[tuple[Storage, str], list[float]] = {}
    for _ in range(repeats):
        for storage in STORAGES:
            for layout in ("single files", "shards"):
                rates.setdefault((storage, layout), []).append(_rate(packed, storage, layout, recipe))
    return [_row(recipe, packed, storage, layout, found) for (storage, layout), found in rates.items()]


def _rate(packed: Sharded, storage: Storage, layout: str, recipe: Recipe) -> float:
    """Samples a second of one epoch."""
    if storage.cold:
        _forget(packed)
    own: dict[str, Any] = {name: getattr(packed, name) for name in Packed.__dataclass_fields__}
    shards: Shards | None = None
    read: Packed = _FarFiles(**own, request_ms=storage.request_ms)
    if layout == "shards":
        shards = Shards(packed.layout.members, packed.mixed)
        opened = Sharded.of(packed, packed.layout, packed.mixed)
        opened.reader = _FarShards(packed.layout, 2 * packed.mixed)
        opened.reader.request_ms = storage.request_ms
        read = opened
    schedule = Schedule(len(packed), 1, recipe.seed, "source", shards=shards)
    began = time.perf_counter()
    for iteration in range(len(packed)):
        read.read_ahead(schedule.soon(iteration))
        (sample,) = schedule.samples(iteration)
        read.image_bytes(sample)
        read.label_bytes(sample)
    return len(packed) / (time.perf_counter() - began)


def _forget(packed: Sharded) -> None:
    """Have the system drop the packs' files from its memory, which it does once they are on the disk."""
    for path in _files(packed):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _files(packed: Sharded) -> Iterator[Path]:
    yield from packed.layout.folder.glob("*.tar")
    for kind in ("images", "labels"):
        yield from (packed.folder / kind).iterdir()


def _row(recipe: Recipe, packed: Sharded, storage: Storage, layout: str, rates: list[float]) -> Row:
    num_bytes = sum(sum(record.packed_bytes) for record in packed.records)
    rate = summary(rates)
    files = 2 * len(packed) if layout == "single files" else len(packed.layout.members)
    return {
        "question": "shards",
        "storage": storage.name,
        "simulated": storage.request_ms > 0,
        "request_ms": storage.request_ms,
        "layout": layout,
        "pack": packed.format,
        "size": list(packed.size),
        "shard_mb": SHARD_MB,
        "shards_mixed": recipe.data.shards_mixed,
        "samples": len(packed),
        "files": files,
        "bytes": num_bytes,
        "samples_per_second": rate,
        "mb_per_second": round(rate["median"] * num_bytes / len(packed) / 1e6, 1),
        **gpu(torch.device("cpu")),
        **stamp(["numpy"]),
    }


COLUMNS = ("storage", "single files, samples a second", "shards", "gain")


def lines(rows: list[Row]) -> list[tuple[str, ...]]:
    """A storage a line: both layouts beside each other."""
    found: list[tuple[str, ...]] = []
    for storage in dict.fromkeys(row["storage"] for row in rows):
        single, shards = (
            next(row for row in rows if row["storage"] == storage and row["layout"] == layout)["samples_per_second"]
            for layout in ("single files", "shards")
        )
        gain = shards["median"] / single["median"]
        found.append((storage, f"{single['median']:.1f}", f"{shards['median']:.1f}", f"{gain:.2f}×"))
    return found


def table_of(rows: list[Row]) -> Table:
    """Rows as a table."""
    first = rows[0]
    size = "{}x{}".format(*first["size"])
    title = f"an epoch of {first['samples']} pairs of {size}, {first['pack']}, shards of {first['shard_mb']:g} MiB"
    table = Table(title=title, box=box.SIMPLE)
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "storage" else "right")
    for line in lines(rows):
        table.add_row(*line)
    return table
