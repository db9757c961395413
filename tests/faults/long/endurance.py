"""Long runs: memory, descriptors and threads stay where they are, and checkpoints cost next to nothing."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from faults.long.commands import Command, room
from faults.long.parts import Try
from faults.runs import arguments

_ITERATIONS = 5000
_GROWTH = 0.02
"""What resident memory may grow by between the second and the last tenth: allocators settle, a leak does not stop."""
_SHARE = 0.02


def endurance(tries: int) -> Iterator[Try]:
    """A run of so many tiny iterations, looked at twice a second."""
    settings = (
        f"train.iterations={tries}", "train.checkpoint_every=50", "train.evaluate_every=250", "train.log_every=25",
    )  # fmt: skip
    with room() as place:
        folder = place / "run"
        command = Command(arguments(folder, settings=settings), place, {"FASTUDA_CACHE": str(place / "cache")})
        looks: list[tuple[int, int, int]] = []
        while command.poll() is None:
            if (folder / "checkpoints" / "source_only-last.safetensors").exists():  # adaptation is under way
                looks.append(_look(command.pid))
            time.sleep(0.5)
        outcome = command.wait()
        if fault := outcome.fault(codes=(0,)):
            yield Try("iterations", f"{fault}: {outcome.said()}")
            return
        looks = [look for look in looks if all(look)]
        tenth = len(looks) // 10
        early, late = looks[tenth : 2 * tenth], looks[-tenth:]
        before, after = ([statistics.median(values) for values in zip(*part, strict=True)] for part in (early, late))
        growth = after[0] / before[0] - 1
        fault = None
        if growth > _GROWTH:
            fault = f"memory grew by {growth:.1%}: {before[0] / 1024:.0f} to {after[0] / 1024:.0f} MiB"
        elif after[1:] != before[1:]:
            fault = f"descriptors, threads: {before[1:]} to {after[1:]}"
        numbers = {
            "growth of memory in percent": 100 * growth,
            "MiB": after[0] / 1024,
            "descriptors": after[1],
            "threads": after[2],
            "looks": len(looks),
        }
        yield Try("iterations", fault, numbers, tries)


def demo(_: int) -> Iterator[Try]:
    """The demo as it is; the share of its time that it stood still for checkpoints."""
    with room() as place:
        folder = place / "run"
        command = ["train", "demo", "--run", str(folder), "--device", "cpu"]
        outcome = Command(command, place, {"FASTUDA_CACHE": str(place / "cache")}).wait(3 * 3600)
        if fault := outcome.fault(codes=(0,)):
            yield Try("demo", f"{fault}: {outcome.said()}")
            return
        results = json.loads((folder / "results.json").read_text())
        stalled, seconds = results["checkpoints"]["seconds_stalled"], sum(results["seconds"].values())
        numbers = {
            "checkpoints": results["checkpoints"]["written"],
            "seconds stalled": stalled,
            "seconds trained": seconds,
            "share in percent": 100 * stalled / seconds,
        }
        fault = f"{stalled:.2f} of {seconds:.1f} s" if stalled > _SHARE * seconds else None
        yield Try("demo", fault, numbers, 1)


def _look(pid: int) -> tuple[int, int, int]:
    """Resident KiB, open descriptors and threads of a process; zeros when it has just ended."""
    try:
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
        )
        return int(status["VmRSS"].split()[0]), len(os.listdir(f"/proc/{pid}/fd")), int(status["Threads"])
    except (OSError, KeyError):
        return 0, 0, 0
