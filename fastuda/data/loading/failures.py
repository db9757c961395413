"""Samples that failed in flight, and what stands for them."""

from __future__ import annotations

import logging
from collections.abc import Collection

from fastuda.data.packing.pack import Packed
from fastuda.data.reading.listing import counted
from fastuda.errors import FastudaError
from fastuda.recipe import Data

log = logging.getLogger(__name__)

_SHOWN = 5


class Failures:
    """Which samples of a pack are replaced, by which, and when that is too many.

    A failed sample is replaced by the next one in the pack's order that has not failed. That is a function of its
    number and of the failed ones alone, so a run that is resumed with the same `failed` replaces alike, and no other
    place in the order moves.
    """

    def __init__(self, packed: Packed, data: Data, failed: Collection[int] = ()) -> None:
        """`failed` are sample numbers that failed before; FastudaError when they are more than `data.max_failed`."""
        if any(not 0 <= index < len(packed) for index in failed):
            raise ValueError(f"failed samples are numbered from 0 to {len(packed) - 1}: {sorted(failed)}")
        self._packed = packed
        self._skip = data.on_error == "skip"
        self._limit = data.max_failed
        self._reasons = dict.fromkeys(failed, "failed earlier in this run")
        if self._reasons:
            self._require_few()

    def __len__(self) -> int:
        return len(self._reasons)

    @property
    def indices(self) -> list[int]:
        """The failed samples' numbers, ascending."""
        return sorted(self._reasons)

    @property
    def reasons(self) -> dict[str, str]:
        """Why each failed, by its name."""
        return {self._packed.names[index]: self._reasons[index] for index in self.indices}

    def learn(self, indices: Collection[int]) -> None:
        """Replace samples that failed elsewhere, too; FastudaError where they are too many by now."""
        new = dict.fromkeys(set(indices) - self._reasons.keys(), "failed on another rank")
        self._reasons |= new
        if new:
            self._require_few()

    def add(self, index: int, error: FastudaError) -> None:
        """Replace a sample from now on, and say so once. FastudaError where `on_error` stops, or for one too many."""
        name = self._packed.names[index]
        if not self._skip:
            raise FastudaError(
                f"sample {name}: {error}; mend it and go on, or have such samples replaced: --set data.on_error=skip"
            ) from error
        if index in self._reasons:
            return
        self._reasons[index] = str(error)
        self._require_few()
        log.warning(
            "sample %s: %s; %s takes its place from now on (%s failed, data.max_failed allows %d)",
            name, error, self._packed.names[self.substitute(index)], counted(len(self), "sample"), self._limit,
        )  # fmt: skip

    def substitute(self, index: int) -> int:
        """The sample that is read where `index` is meant: itself, or the next that has not failed."""
        return substitute(index, self._reasons, len(self._packed))

    def _require_few(self) -> None:
        if len(self) > self._limit or len(self) == len(self._packed):
            named = [f"{name}: {reason}" for name, reason in list(self.reasons.items())[-_SHOWN:]]
            allowed = "all there are" if len(self) <= self._limit else f"data.max_failed allows {self._limit}"
            raise FastudaError(
                f"{counted(len(self), 'sample')} failed while they were read, and {allowed} ({'; '.join(named)}); look "
                "at the disk and the files, run `fastuda data check`, or allow more with --set data.max_failed=N"
            )


def numbers(packed: Packed, names: Collection[str]) -> list[int]:
    """Numbers of the samples of these names, ascending; names that the pack does not hold are left out."""
    return [index for index, name in enumerate(packed.names) if name in names] if names else []


def substitute(index: int, failed: Collection[int], num_samples: int) -> int:
    """The first of `index`, `index` + 1, … (past the end: from 0 on) that is not in `failed`; ValueError if all are."""
    for step in range(num_samples):
        candidate = (index + step) % num_samples
        if candidate not in failed:
            return candidate
    raise ValueError(f"all {num_samples} samples have failed")
