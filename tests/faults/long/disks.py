"""Full and read-only disks and folders that vanish: one line, and after it the run goes on to the same end.

Needs leave to mount (root): the disks are real file systems in memory, of a few KiB to a few MiB.
"""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faults.long.commands import Command, room, run
from faults.long.parts import Try, spread
from faults.long.phases import PHASES, Phases
from faults.long.undisturbed import Undisturbed, undisturbed
from faults.runs import arguments, differences

_base: Undisturbed
_MOST_LINES = 4
"""Of a message: the file, and what to do."""


@contextmanager
def disk(place: Path, kib: int) -> Iterator[Path]:
    """A file system of that size in memory."""
    place.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(place))
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def full(tries: int) -> Iterator[Try]:
    """Runs, and commands that write pictures and reports, on disks of growing size, so that each write fails once."""
    global _base
    with undisturbed() as _base:
        yield from spread(_full, range(tries))


def vanishing(tries: int) -> Iterator[Try]:
    """Run folders and caches that become read-only, or are deleted, in every phase of a run."""
    global _base
    with undisturbed() as _base:
        yield from spread(_gone, range(tries))


_OTHERS = ("predict", "eval", "check", "study")


def _full(seed: int) -> list[Try]:
    """Small disks, a step larger from try to try, and large ones that fill up in a phase."""
    kind, number = ("run folder", "filled", "cache", "command")[seed % 4], seed // 4
    with room() as place:
        if kind == "run folder":  # the small files first, then states, models, pictures
            return [_run(place, run_kib=4 * (1 + number) if number < 12 else 550 * (number - 11))]
        if kind == "filled":
            return [_filled(place, PHASES[number % len(PHASES)], random.Random(seed))]
        if kind == "cache":
            return [_run(place, cache_kib=4 + 14 * number)]
        return [_other(place, _OTHERS[number % len(_OTHERS)], 4 + 12 * (number // len(_OTHERS)) ** 2)]


def _filled(place: Path, phase: str, dice: random.Random) -> Try:
    """The disk of a run's folder has no byte left from some moment of a phase on."""
    with disk(place / "small", 64 << 10) as small:
        folder, environment, phases = small / "run", {"FASTUDA_CACHE": str(place / "cache")}, Phases()
        command = Command(arguments(folder), place, environment, phases.install)
        while command.poll() is None and phases.now() != phase:
            time.sleep(0.0005)
        time.sleep(dice.uniform(0, 0.2))
        with contextlib.suppress(OSError), (small / "others").open("wb", buffering=0) as file:
            while file.write(bytes(1 << 12)):
                pass
        outcome = command.wait(600)
        site, kind = _site(outcome.output, small), f"filled in {phase}"
        (small / "others").unlink()
        if outcome.code == 0:
            found = differences(_base.run, folder)
            return Try(f"{kind}: done before", f"not as without: {', '.join(found[:5])}" if found else None)
        if fault := outcome.fault(codes=(1,)) or _untidy(outcome.output, small):
            return Try(f"{kind}: {site}", f"{fault}: {outcome.said()}")
        return Try(f"{kind}: {site}", _goes_on(folder, place, environment))


def _run(place: Path, run_kib: int | None = None, cache_kib: int | None = None) -> Try:
    kind = "run folder" if run_kib else "cache"
    with disk(place / "small", run_kib or cache_kib or 4) as small:
        folder = (small if run_kib else place) / "run"
        cache = small / "cache" if cache_kib else _base.place / "cache"  # which holds the demo, packed
        environment = {"FASTUDA_CACHE": str(cache)}
        outcome = run(arguments(folder), place, environment, 600)
        site = _site(outcome.output, small)
        if outcome.code == 0:
            return Try(f"{kind}: large enough", None if not differences(_base.run, folder) else "other results")
        if fault := outcome.fault(codes=(1,)) or _untidy(outcome.output, small):
            return Try(f"{kind}: {site}", f"{run_kib or cache_kib} KiB: {fault}: {outcome.said()}")
        _mount("-o", "remount,size=64m", str(small))
        return Try(f"{kind}: {site}", _goes_on(folder, place, environment))


def _goes_on(folder: Path, place: Path, environment: dict[str, str]) -> str | None:
    outcome = run(arguments(folder, "--resume"), place, environment, 600)
    if fault := outcome.fault(codes=(0,)):
        return f"does not go on: {fault}: {outcome.said()}"
    if found := differences(_base.run, folder):
        return f"not as without: {', '.join(found[:5])}"
    return None


def _other(place: Path, kind: str, kib: int) -> Try:
    """Another command that writes, on a small disk."""
    whole = str(_base.run)
    pictures = next((_base.place / "cache" / "demo").glob("*/target"))
    with disk(place / "small", kib) as small:
        out = str(small / "out")
        commands = {
            "predict": ["predict", whole, str(pictures), "--out", out],
            "eval": ["eval", whole, "--save-predictions", out, "--boundary"],
            "check": ["data", "check", "cityscapes", str(pictures), "--report", str(small / "report.html")],
            "study": ["study", "baselines", "--out", out],
        }
        outcome = run(commands[kind], place, {"FASTUDA_CACHE": str(small / "cache")}, 120)
        fault = outcome.fault(codes=(0, 1, 2))
        if fault is None and outcome.code == 1:
            fault = _untidy(outcome.output, small)
        left = [path.name for path in small.rglob("*") if path.name.endswith(".part")]
        if fault is None and left:
            fault = f"left behind: {left}"
        site = "large enough" if outcome.code == 0 else _site(outcome.output, small)
        return Try(f"{kind}: {site}", fault and f"{kib} KiB: {fault}: {outcome.said()}")


def _gone(seed: int) -> list[Try]:
    """In a phase of the seed's, something is made read-only or deleted."""
    what = ("run folder read-only", "cache read-only", "cache deleted", "packs deleted")[seed // len(PHASES) % 4]
    phase = PHASES[seed % len(PHASES)]
    with room() as place:
        small = place / "small"
        small.mkdir()
        folder = (small if what.startswith("run") else place) / "run"
        cache = (small if what == "cache read-only" else place) / "cache"
        environment = {"FASTUDA_CACHE": str(cache)}
        phases = Phases()
        command = Command(arguments(folder), place, environment, phases.install)
        while command.poll() is None and phases.now() != phase:
            time.sleep(0.0005)
        if "read-only" in what:
            _make_immutable(small)
        elif what == "cache deleted":
            shutil.rmtree(cache, ignore_errors=True)
        else:
            for pack in cache.glob("*-*/"):
                shutil.rmtree(pack, ignore_errors=True)
        outcome = command.wait(600)
        kind = f"{what}, in {phase}"
        if outcome.code and (fault := outcome.fault(codes=(1,)) or _untidy(outcome.output, place)):
            return [Try(kind, f"{fault}: {outcome.said()}")]
        if "read-only" in what:
            _make_immutable(small, "-")
        if outcome.code == 0:
            found = differences(_base.run, folder)
            return [Try(kind, f"not as without: {', '.join(found[:5])}" if found else None)]
        return [Try(kind, _goes_on(folder, place, environment))]


def _make_immutable(folder: Path, sign: str = "+") -> None:
    """Nothing under it can be written from now on, open files included, as on a disk that the kernel gave up.

    A real remount is refused while a file is open for writing. Asked for twice: files come and go meanwhile.
    """
    for _ in range(2):
        subprocess.run(["chattr", "-R", f"{sign}i", str(folder)], capture_output=True)


def _site(output: str, small: Path) -> str:
    """Which kind of file could not be written, by the message."""
    named = re.findall(re.escape(str(small)) + r"[\w./=-]*", output)
    if not named:
        return "unnamed"
    name = Path(named[-1].rstrip(".")).name
    return re.sub(r"\d+", "N", re.sub(r"[0-9a-f]{12}", "H", name))


def _untidy(output: str, small: Path) -> str | None:
    """A message that names no file, or is long."""
    lines = [line for line in output.strip().splitlines() if line.strip()]
    errors = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    if len(errors) != 1:
        return f"{len(errors)} errors"
    if len(lines) - errors[0] > _MOST_LINES:
        return f"a message of {len(lines) - errors[0]} lines"
    return None if str(small) in "\n".join(lines[errors[0] :]) else "no file named"
