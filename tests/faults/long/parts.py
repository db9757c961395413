"""What a part of the long harness has to show, and how its tries are spread over the cores."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

LANES = 2
"""Tries at a time."""
_SHOWN = 20


@dataclass(frozen=True)
class Try:
    """One fault put to the program, and what came of it."""

    kind: str
    fault: str | None = None
    """What went wrong, None where everything held."""
    numbers: dict[str, float] = field(default_factory=dict)
    """What was measured; of all tries the largest is kept."""
    count: int = 1
    """How many faults of this kind it stands for."""


@dataclass(frozen=True)
class Part:
    """One line of the table: a kind of fault, tried many times."""

    name: str
    title: str
    """What is done, and what has to come of it."""
    tries: int
    """Of the whole part; fewer are run with `--share`."""
    run: Callable[[int], Iterable[Try]]
    """Given how many tries."""

    def result(self, share: float = 1.0) -> dict[str, Any]:
        """Run it, telling every tenth and every failure; the counts, by kind too, and the failures."""
        began, kinds, failures, largest, tenths = time.monotonic(), Counter[str](), [], {}, 0
        for done in self.run(max(1, round(self.tries * share))):
            kinds[done.kind] += done.count
            if (total := sum(kinds.values())) * 10 // self.tries > tenths:
                tenths = total * 10 // self.tries
                print(f"{self.name}: {total} of {self.tries}", flush=True)
            for name, value in done.numbers.items():
                largest[name] = max(value, largest.get(name, value))
            if done.fault is not None:
                failures.append(f"{done.kind}: {done.fault}")
                print(f"{self.name}: {failures[-1][:600]}", flush=True)
        seconds = time.monotonic() - began
        total = sum(kinds.values())
        print(f"{self.name}: {total} tries, {len(failures)} failures, {seconds:.0f} s", flush=True)
        return {
            "title": self.title,
            "tries": total,
            "failed": len(failures),
            "failures": failures[:_SHOWN],
            "kinds": {kind: count for kind, count in sorted(kinds.items()) if count},
            "largest": {name: round(value, 3) for name, value in sorted(largest.items())},
            "seconds": round(seconds, 1),
        }


def spread(function: Callable[[int], list[Try]], seeds: Iterable[int]) -> Iterator[Try]:
    """What `function` gives for every seed, in any order, `LANES` at a time, each lane a process."""
    with ProcessPoolExecutor(LANES, multiprocessing.get_context("fork")) as pool:
        for done in as_completed([pool.submit(function, seed) for seed in seeds]):
            yield from done.result()
