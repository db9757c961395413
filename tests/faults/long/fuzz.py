"""The three readers of strangers' files under a fuzzer that is guided by coverage (atheris), a process each."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from faults.long.commands import room
from faults.long.parts import LANES, Try

READERS = ("images", "recipes", "weights")


def fuzz(minutes: int) -> Iterator[Try]:
    """Each reader for so many minutes; whatever it raises but the one exception for users ends it."""
    with room() as place, ThreadPoolExecutor(LANES) as pool:
        yield from pool.map(lambda reader: _fuzzed(reader, 60 * minutes, place), READERS)


def _fuzzed(reader: str, seconds: int, place: Path) -> Try:
    corpus = place / reader
    corpus.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "faults.long.fuzzed", reader, str(seconds), str(corpus)],
        capture_output=True, text=True, errors="backslashreplace", cwd=place,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )  # fmt: skip
    said = done.stdout + done.stderr
    inputs = re.findall(r"number_of_executed_units:\s*(\d+)", said)
    branches = [int(number) for number in re.findall(r"cov: (\d+)", said)]
    fault = said[-1500:] if done.returncode or not inputs else None
    if fault is None and (not branches or branches[-1] <= branches[0]):
        fault = "coverage guided nothing: as many branches at the end as at the beginning"
    numbers = {f"inputs to {reader}": float(inputs[-1])} if inputs else {}
    if branches:
        numbers[f"branches of {reader}"] = float(branches[-1])
    return Try(f"minutes with {reader}", fault, numbers, seconds // 60)
