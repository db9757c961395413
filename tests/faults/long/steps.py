"""Restoring at every step of a run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from faults.long.commands import Command, room
from faults.long.parts import Try, spread
from faults.long.undisturbed import Undisturbed, undisturbed
from faults.runs import arguments, differences

from fastuda.runs.checkpoint.store import CheckpointStore

_SETTINGS = ("warmup.iterations=24", "train.iterations=36", "train.evaluate_every=20", "train.checkpoints_kept=100")
_base: Undisturbed


def steps(tries: int) -> Iterator[Try]:
    """One run of 60 iterations that keeps every checkpoint, gone on with from each of them."""
    global _base
    with undisturbed(*_SETTINGS) as _base:
        yield from spread(_from, range(min(tries, len(_states(_base.run)) - 1)))


def _states(folder: Path) -> list[Path]:
    return [file.path for file in reversed(CheckpointStore(folder / "checkpoints").files())]


def _from(number: int) -> list[Try]:
    whole = _base.run
    with room() as place:
        folder = place / "run"
        shutil.copytree(whole, folder)
        states = _states(folder)
        for path in states[number + 1 :]:
            path.unlink()
        (folder / "results.json").unlink()
        outcome = Command(arguments(folder, "--resume", settings=_SETTINGS), place, _base.environment).wait(600)
        fault = outcome.fault(codes=(0,))
        if fault:
            fault += f": {outcome.said()}"
        elif found := differences(whole, folder):
            fault = f"from {states[number].name} not as without: {', '.join(found[:5])}"
        return [Try(states[number].name.partition("-")[0], fault)]
