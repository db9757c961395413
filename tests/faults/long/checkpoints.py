"""Damaged checkpoints: every one is told, and the run goes on from the one before it, to the same end."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from faults.long.commands import Command, room
from faults.long.parts import Try, spread
from faults.long.undisturbed import Undisturbed, undisturbed
from faults.runs import arguments, differences

from fastuda.runs.checkpoint.store import CheckpointStore

_SETTINGS = ("warmup.iterations=2", "train.iterations=5", "train.evaluate_every=20", "train.checkpoints_kept=3")
_base: Undisturbed


def checkpoints(tries: int) -> Iterator[Try]:
    """A run two iterations before its end, its newest checkpoint damaged in a way of the seed's."""
    global _base
    with undisturbed(*_SETTINGS) as _base:
        near = _near()
        shutil.copytree(_base.run, near)
        (near / "results.json").unlink()
        CheckpointStore(near / "checkpoints").files()[0].path.unlink()
        yield from spread(_damaged, range(tries))


def _near() -> Path:
    return _base.place / "near"


def _cut(dice: random.Random, data: bytearray) -> bytes:
    return bytes(data[: dice.randrange(len(data))])


def _flipped(dice: random.Random, data: bytearray) -> bytes:
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return bytes(data)


def _page_of_zeros(dice: random.Random, data: bytearray) -> bytes:
    places = [place for place in range(0, len(data) - 4096, 4096) if any(data[place : place + 4096])]
    place = dice.choice(places)
    data[place : place + 4096] = bytes(4096)
    return bytes(data)


_KINDS: tuple[tuple[str, Callable[[random.Random, bytearray], bytes]], ...] = (
    ("cut short", _cut),
    ("flipped bit", _flipped),
    ("cut short", _cut),
    ("flipped bit", _flipped),
    ("page of zeros", _page_of_zeros),
)


def _damaged(seed: int) -> list[Try]:
    dice, (kind, damage) = random.Random(seed), _KINDS[seed % len(_KINDS)]
    with room() as place:
        folder = place / "run"
        shutil.copytree(_near(), folder)
        newest = CheckpointStore(folder / "checkpoints").files()[0].path
        newest.write_bytes(damage(dice, bytearray(newest.read_bytes())))
        outcome = Command(arguments(folder, "--resume", settings=_SETTINGS), place, _base.environment).wait(600)
        fault = outcome.fault(codes=(0,))
        if fault:
            fault += f": {outcome.said()}"
        elif newest.name not in outcome.output or "the one before it is used" not in outcome.output:
            fault = f"seed {seed}: not told"
        elif found := differences(_base.run, folder):
            fault = f"seed {seed}: not as without: {', '.join(found[:5])}"
        return [Try(kind, fault)]
