"""Damaged packs: whatever is read is what was written, or is made anew, and the run's end is the same."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from faults.long.commands import Command
from faults.long.parts import LANES, Try, spread
from faults.long.undisturbed import Undisturbed, undisturbed
from faults.packs import damaged
from faults.runs import arguments, differences

_SETTINGS = ("warmup.iterations=3", "train.iterations=5", "train.checkpoint_every=5")
_TOLD = ("made anew", "are new", "packed again")
"""One of them is said of every damage but a folder that is gone: that is packed as for the first time."""
_KEPT = ("index.json", "images", "labels")
_bases: list[Undisturbed] = []


def packed(tries: int) -> Iterator[Try]:
    """A run over packs of which one is damaged, a kind a seed; whole folders and files, byte by byte, afterwards."""
    with ExitStack() as stack:
        # A cache is one try's at a time: each lane has its own, and its seeds one after another.
        _bases[:] = [stack.enter_context(undisturbed(*_SETTINGS)) for _ in range(LANES)]
        for base in _bases:
            shutil.copytree(base.place / "cache", base.place / "sound")
        yield from spread(_lane, [lane * 1000 + tries for lane in range(LANES)])


def _packs(cache: Path) -> list[Path]:
    return sorted(path.parent for path in cache.glob("*/index.json"))


def _lane(number: int) -> list[Try]:
    lane, tries = divmod(number, 1000)
    return [_damaged(_bases[lane], seed) for seed in range(lane, tries, LANES)]


def _damaged(base: Undisturbed, seed: int) -> Try:
    place = base.place
    shutil.rmtree(place / "cache")
    shutil.copytree(place / "sound", place / "cache")
    packs = _packs(place / "cache")
    # The evaluation's labels are read for scores, the target's pack has none.
    what = damaged(seed, packs[seed // 7 % len(packs)])
    folder = place / "run"
    shutil.rmtree(folder, ignore_errors=True)
    outcome = Command(arguments(folder, settings=_SETTINGS), place, base.environment).wait(600)
    fault = outcome.fault(codes=(0,))
    if fault:
        fault += f": {outcome.said()}"
    elif found := differences(base.run, folder):
        fault = f"{what}: not as without: {', '.join(found[:5])}"
    elif other := _otherwise(place / "sound", place / "cache"):
        fault = f"{what}: not made anew: {', '.join(other[:5])}"
    elif not any(words in outcome.output for words in _TOLD) and not what.startswith("folder deleted"):
        fault = f"{what}: not told"
    return Try(what.partition(":")[0], fault)


def _otherwise(sound: Path, cache: Path) -> list[str]:
    """Packed files that are not what they were."""
    found = []
    for pack in _packs(sound):
        for name in _KEPT:
            files = [pack / name] if (pack / name).is_file() else sorted((pack / name).iterdir())
            for file in files:
                other = cache / file.relative_to(sound)
                if file.name == "index.json":
                    same = other.exists()
                else:
                    same = other.exists() and other.read_bytes() == file.read_bytes()
                if not same:
                    found.append(str(file.relative_to(sound)))
    return found
