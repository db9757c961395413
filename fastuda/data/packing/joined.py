"""Two packed data sets of one size read as one: the labelled images of both domains."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastuda.data.packing.pack import Packed, PackedKind

MARK = "target: "
"""Before the names of the second pack's samples, which may be called as the first's are."""


@dataclass
class Joined(Packed):
    """The samples of `first`, and behind them those of `second`; each is read, and mended, by its own pack."""

    first: Packed = field(kw_only=True)
    second: Packed = field(kw_only=True)

    @classmethod
    def of(cls, first: Packed, second: Packed) -> Joined:
        """Both, with labels at the images' size; ValueError for packs of another size or format."""
        if (first.size, first.format) != (second.size, second.format):
            raise ValueError(f"{first.folder} and {second.folder} differ in the size or the format of their images")
        return cls(
            folder=first.folder,
            names=[*first.names, *(MARK + name for name in second.names)],
            size=first.size,
            fingerprint=f"{first.fingerprint} {second.fingerprint}",
            left_out=first.left_out,
            format=first.format,
            records=[*first.records, *second.records],
            first=first,
            second=second,
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    def single_files(self) -> Packed:
        return Joined.of(self.first.single_files(), self.second.single_files())

    def read_ahead(self, samples: Iterable[int]) -> None:
        owned = [self._own(sample) for sample in samples]
        for pack in (self.first, self.second):
            pack.read_ahead([place for own, place in owned if own is pack])

    def path(self, index: int, kind: PackedKind) -> Path:
        own, place = self._own(index)
        return own.path(place, kind)

    def _read(self, index: int, kind: PackedKind) -> NDArray[np.uint8]:
        own, place = self._own(index)
        return own._read(place, kind)

    def _own(self, index: int) -> tuple[Packed, int]:
        """The pack that holds a sample, and its number there."""
        return (self.first, index) if index < len(self.first) else (self.second, index - len(self.first))
