"""What several GPUs want to be fed, and how many of them a kind of storage, or a machine's cores, can feed: a model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from fastuda.recipe import Recipe
from fastuda_bench.links import MACHINE
from fastuda_bench.results import Row
from fastuda_bench.scaling import Pace

Packed = Literal["png", "raw"]
IMAGE_BYTES: dict[Packed, float] = {"png": 1.39, "raw": 3.0}
"""A pixel, of bench/results/formats.json."""
DECODE_SECONDS: dict[Packed, float] = {"png": 15.36e-9, "raw": 0.19e-9}
"""Of one core, a pixel of an image, likewise; what else is done to an image is done by the GPU."""
_LABEL_BYTES: dict[Packed, float] = {"png": 0.05, "raw": 1.0}
"""A pixel: of the packing's own estimate of space."""
_LABEL_SHARE = 1 / 3
"""Of an image's decoding, for a label of one channel in three: an assumption."""
CORES = 96
"""Of a machine of 8 GPUs: an assumption."""


@dataclass(frozen=True)
class Store:
    """Where packed files lie."""

    name: str
    bandwidth: float
    """Bytes a second."""
    shared: bool
    """Whether all machines share it; else each has as much."""
    said: str


def _objects(num_bytes: float) -> float:
    """Bytes a second of a machine's 16 streams that wait 0.1 s for an object of so many bytes, and get 90 MB/s."""
    return 16 * num_bytes / (0.1 + num_bytes / 90e6)


STORES = (
    Store("NVMe", 3e9, False, "each machine's own; 3 GB/s, an assumption below the data sheets of PCIe 4.0 drives"),
    Store("NFS 10 Gb/s", 1.12e9, True, "0.9 of the server's link, an assumption"),
    Store("NFS 25 Gb/s", 2.8e9, True, "likewise"),
    Store("NFS 100 Gb/s", 11.2e9, True, "likewise"),
    Store("64 MB objects", _objects(64e6), False, "16 streams a machine, 0.1 s and 90 MB/s each, assumptions"),
    Store("1.3 MB objects", _objects(1.3e6), False, "the same, a packed image an object"),
)


@dataclass(frozen=True)
class Need:
    """Of one rank."""

    images: float
    """A second, of both domains."""
    bytes: float
    """A second."""
    cores: float
    """To decode."""

    def most_ranks(self, store: Store) -> int | None:
        """How many `store` feeds; None where it feeds whole machines, however many there are."""
        most = math.floor(store.bandwidth / self.bytes)
        return most if store.shared else _of_a_machine(most)

    def most_decoded(self) -> int | None:
        """How many a machine's cores decode for, likewise."""
        return _of_a_machine(math.floor(CORES / self.cores))


def _of_a_machine(most: int) -> int | None:
    return None if most >= MACHINE else most


def need(recipe: Recipe, pace: Pace, pack: Packed) -> Need:
    """What a rank reads whose iterations take no longer than it computes: each domain's packed views, source labels."""
    views, count = recipe.views, recipe.train.batch_size
    source, target = (width * height for width, height in (views.source_size, views.target_size))
    image, label = source + target, source
    moved = IMAGE_BYTES[pack] * image + _LABEL_BYTES[pack] * label
    decoded = DECODE_SECONDS[pack] * (image + _LABEL_SHARE * label)
    return Need(2 * count / pace.compute, count * moved / pace.compute, count * decoded / pace.compute)


def feeding_rows(recipe: Recipe, found: list[Pace]) -> list[Row]:
    """A row a card and pack: need of a rank, and most ranks of each store and of a machine's cores."""
    rows: list[Row] = []
    packs: tuple[Packed, ...] = ("png", "raw")
    for pace in {pace.card.name: pace for pace in found}.values():
        for pack in packs:
            one = need(recipe, pace, pack)
            rows.append(
                {
                    "part": "feeding",
                    "kind": "model",
                    "card": pace.card.name,
                    "pack": pack,
                    "compute_ms": round(1000 * pace.compute, 2),
                    "images_per_second": round(one.images, 1),
                    "bytes_per_second": round(one.bytes),
                    "decoding_cores": round(one.cores, 2),
                    "most_ranks": {
                        f"{CORES} cores": one.most_decoded(),
                        **{store.name: one.most_ranks(store) for store in STORES},
                    },
                }
            )
    return rows
