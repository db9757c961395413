"""kill -9 at any moment: the run goes on as if nothing had happened."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

from faults.long.commands import Command, room
from faults.long.parts import Try, spread
from faults.long.phases import LASTS, PHASES, Phases
from faults.long.undisturbed import Undisturbed, undisturbed
from faults.runs import arguments, differences

_A_CHAIN = len(PHASES) - 2
"""Kills that a chain has at least: a phase may be over before its turn comes."""


def kills(tries: int) -> Iterator[Try]:
    """Chains of kills, one in each phase, each chain's end compared with a run that nobody killed."""
    global _base
    with undisturbed() as _base:
        yield from spread(_chain, range(-(-tries // _A_CHAIN)))


_base: Undisturbed


def _chain(seed: int) -> list[Try]:
    """A run from an empty folder and cache, killed once in every phase, the middle ones in an order of the seed's."""
    dice, done = random.Random(seed), []
    targets = list(PHASES[:2]) + dice.sample(PHASES[2:-1], len(PHASES) - 3) + [PHASES[-1]]
    with room() as place:
        folder, environment = place / "run", {"FASTUDA_CACHE": str(place / "cache")}
        for target in targets:
            done.append(_killed(folder, place, environment, target, dice))
        outcome = Command(arguments(folder, "--resume"), place, environment).wait(600)
        fault = outcome.fault(codes=(0,))
        if fault:
            fault += f": {outcome.said()}"
        elif found := differences(_base.run, folder):
            fault = f"not as a run that nobody killed: {', '.join(found[:5])}"
        elif left := [path.name for path in [*place.rglob("*.part")]]:
            fault = f"left behind: {left}"
        done.append(Try("gone on to the end", fault, {"seconds of a command": outcome.seconds}, count=0))
    return done


def _killed(folder: Path, place: Path, environment: dict[str, str], target: str, dice: random.Random) -> Try:
    phases = Phases()
    command = Command(arguments(folder, "--resume"), place, environment, phases.install)
    while command.poll() is None and phases.now() != target:
        time.sleep(0.0005)
    time.sleep(dice.uniform(0, LASTS[target]))
    command.kill()
    outcome = command.wait()
    phase = phases.now()
    if outcome.code == 0:
        return Try("was done before", count=0)
    if outcome.code != -9:
        return Try(phase, f"ended by itself: {outcome.fault()} {outcome.said()}")
    if left := command.leftovers():
        return Try(phase, f"{len(left)} processes outlived it")
    return Try(phase)
