"""Signals at any moment: the run ends in time, with its own exit code, and goes on to the same end."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator

from faults.long.commands import Command, room
from faults.long.parts import Try, spread
from faults.long.phases import LASTS, PHASES, Phases
from faults.long.undisturbed import Undisturbed, undisturbed
from faults.runs import arguments, differences

from fastuda.runtime.stop import EXIT_STOPPED

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_LIMIT = 2.0
"""Seconds beside an iteration."""
_base: Undisturbed


def signals(tries: int) -> Iterator[Try]:
    """Each signal in each phase; the time until the process has ended, beside that of an iteration."""
    global _base
    with undisturbed() as _base:
        yield from spread(_signalled, range(tries))


def _signalled(seed: int) -> list[Try]:
    dice, phase, number = random.Random(seed), PHASES[seed % len(PHASES)], _SIGNALS[seed // len(PHASES) % 3]
    with room() as place:
        folder, environment, phases = place / "run", {"FASTUDA_CACHE": str(place / "cache")}, Phases()
        command = Command(arguments(folder), place, environment, phases.install)
        while command.poll() is None and phases.now() != phase:
            time.sleep(0.0005)
        time.sleep(dice.uniform(0, LASTS[phase]))
        at, asked = phases.now(), time.monotonic()
        command.kill(number)
        outcome = command.wait(120)
        seconds, kind = time.monotonic() - asked, f"{number.name}, in {at}"
        if outcome.code == 0:
            return [Try("was done before", count=0)]
        fault = outcome.fault(codes=(EXIT_STOPPED,))
        if fault:
            fault += f": {outcome.said()}"
        elif seconds > _LIMIT + phases.longest():
            fault = f"seed {seed}: ended after {seconds:.1f} s, an iteration takes {phases.longest():.1f}"
        elif left := command.leftovers():
            fault = f"{len(left)} processes outlived it"
        else:
            again = Command(arguments(folder, "--resume"), place, environment).wait(600)
            if fault := again.fault(codes=(0,)):
                fault = f"does not go on: {fault}: {again.said()}"
            elif found := differences(_base.run, folder):
                fault = f"not as without: {', '.join(found[:5])}"
        return [Try(kind, fault, {"seconds to the end": seconds, "seconds of an iteration": phases.longest()})]
