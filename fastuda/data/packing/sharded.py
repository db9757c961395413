"""A pack read from its shards: each whole, from beginning to end, ahead of when it is needed."""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastuda.data.packing.pack import IMAGES, Packed, PackedKind
from fastuda.data.packing.shards import Layout

log = logging.getLogger(__name__)

Content = NDArray[np.uint8]
_POOLS = 2
"""That are in memory: the one that is read from, and the next."""


class ShardReader:
    """Shards in memory, the last few that were asked for; a thread reads what is needed next.

    At most `most` are held. Any thread may ask.
    """

    def __init__(self, layout: Layout, most: int) -> None:
        self._layout = layout
        self._most = most
        self._held: OrderedDict[int, Future[Content | None]] = OrderedDict()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="fastuda-shards")
        self._told: set[int] = set()

    def ahead(self, shards: Iterable[int]) -> None:
        """Begin to read shards that are not there yet."""
        for shard in shards:
            self._begun(shard)

    def whole(self, shard: int) -> Content | None:
        """A shard's bytes; None where it is gone, short or cannot be read."""
        return self._begun(shard).result()

    def tell(self, shard: int, what: str) -> None:
        """Say once of a shard that it is not what was written."""
        with self._lock:
            if shard in self._told:
                return
            self._told.add(shard)
        log.warning("%s: %s; its samples are read from single files", self._layout.path(shard), what)

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _begun(self, shard: int) -> Future[Content | None]:
        with self._lock:
            if shard not in self._held:
                while len(self._held) >= self._most:
                    self._held.popitem(last=False)
                self._held[shard] = self._pool.submit(self._read, shard)
            self._held.move_to_end(shard)
            return self._held[shard]

    def _read(self, shard: int) -> Content | None:
        path, size = self._layout.path(shard), self._layout.sizes[shard]
        try:
            content = _from_beginning_to_end(path)
        except OSError as error:
            self.tell(shard, "is gone" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}")
            return None
        if len(content) != size:
            self.tell(shard, f"has {len(content)} bytes, and {size} were written")
            return None
        return content


def _from_beginning_to_end(path: Path) -> Content:
    with path.open("rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return np.fromfile(file, np.uint8)


@dataclass
class Sharded(Packed):
    """A pack whose samples come out of shards, and out of its single files where a shard is not what was written."""

    layout: Layout = field(kw_only=True, repr=False, compare=False)
    mixed: int = field(kw_only=True)
    """Shards whose samples are shuffled among one another; twice as many are held in memory."""
    reader: ShardReader = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.reader = ShardReader(self.layout, _POOLS * self.mixed)

    @classmethod
    def of(cls, packed: Packed, layout: Layout, mixed: int) -> Sharded:
        """A pack, and its shards."""
        return cls(**{name: getattr(packed, name) for name in Packed.__dataclass_fields__}, layout=layout, mixed=mixed)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "reader": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    def single_files(self) -> Packed:
        """The same pack, read file by file."""
        return Packed(**{name: getattr(self, name) for name in Packed.__dataclass_fields__})

    def read_ahead(self, samples: Iterable[int]) -> None:
        """Begin to read the shards of samples that are needed soon."""
        self.reader.ahead(self.layout.places[sample, IMAGES][0] for sample in samples)

    def _read(self, index: int, kind: PackedKind) -> Content:
        self.path(index, kind)  # ValueError for labels where there are none
        shard, start = self.layout.places[index, kind]
        whole = self.reader.whole(shard)
        if whole is not None:
            record = self.records[index]
            content = whole[start : start + self.written_bytes(index, kind)]
            wrong = self.wrong_with(content, record, kind)
            if wrong is None:
                return content
            self.reader.tell(shard, f"holds a packed file that {wrong}")
        return super()._read(index, kind)
