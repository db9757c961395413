"""The run that nothing happens to, with which all others are compared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from faults.long.commands import room, run
from faults.runs import arguments


@dataclass(frozen=True)
class Undisturbed:
    """A finished run, and the cache with its packed demo."""

    place: Path

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.place / "whole"

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which another run finds the same cache."""
        return {"FASTUDA_CACHE": str(self.place / "cache")}


@contextmanager
def undisturbed(*settings: str) -> Iterator[Undisturbed]:
    """Train the tiny demo, with `settings`; RuntimeError when not even that works. All is gone afterwards."""
    with room() as place:
        base = Undisturbed(place)
        outcome = run(arguments(base.run, settings=settings), place, base.environment, 600)
        if fault := outcome.fault(codes=(0,)):
            raise RuntimeError(f"{fault}: {outcome.said()}")
        yield base
