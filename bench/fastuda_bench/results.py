"""Rows of results: stamped with machine, versions and date, written as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from fastuda.files import disk

Row = dict[str, Any]
NOT_COMPARED = "not compared"
"""The `disagreement` of a row whose baseline is missing: nobody knows whether its result is right."""
_ASKED = {
    "power_limit_w": "power.limit",
    "sm_clock_mhz": "clocks.sm",
    "memory_clock_mhz": "clocks.mem",
    "driver": "driver_version",
}
"""What nvidia-smi is asked, by the name in a row."""


def stamp(packages: Sequence[str]) -> Row:
    """What a row needs to be compared later: processor, cores in use, how busy they are, versions, commit, date."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in packages},
        "commit": commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def gpu(device: torch.device) -> Row:
    """A GPU's name, power limit in watts, present clocks in MHz, driver; None for a CPU, or where nobody says."""
    if device.type != "cuda":
        return {"gpu": None, **dict.fromkeys(_ASKED)}
    uuid = torch.cuda.get_device_properties(device).uuid
    asked = ["nvidia-smi", f"--id=GPU-{uuid}", f"--query-gpu={','.join(_ASKED.values())}"]
    said: dict[str, Any] = dict.fromkeys(_ASKED)
    try:
        answer = subprocess.run([*asked, "--format=csv,noheader,nounits"], capture_output=True, text=True, check=True)
        said = dict(zip(_ASKED, (part.strip() for part in answer.stdout.split(",")), strict=True))
        said |= {name: float(said[name]) for name in _ASKED if name != "driver"}
    except (OSError, subprocess.CalledProcessError, ValueError):
        said = dict.fromkeys(_ASKED)
    return {"gpu": torch.cuda.get_device_name(device), **said}


def summary(values: Sequence[float]) -> Row:
    """Number of repeats, median and spread (largest minus smallest) of repeated measurements."""
    return {
        "repeats": len(values),
        "median": round(statistics.median(values), 4),
        "spread": round(max(values) - min(values), 4),
    }


def doubt_of(row: Row) -> str | None:
    """Why a row's speed counts for nothing: it failed, or its result is not the baseline's; None if it counts."""
    disagreement = row.get("disagreement")
    return row.get("error") or (None if disagreement == NOT_COMPARED else disagreement)


def sound(rows: Sequence[Row]) -> list[Row]:
    """The rows whose speed counts."""
    return [row for row in rows if doubt_of(row) is None]


def failure(error: Exception) -> str:
    """An error in a row: its kind and the first line that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"[:400]


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows to a JSON file, whole or not at all, replacing those of an earlier run."""
    write_json(path, list(rows))


def read_json(path: Path) -> Any:
    """What a JSON file holds; None if it is missing or none."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole or not at all. Raises FastudaError when the disk refuses."""
    disk.make_folder(path.parent)
    disk.write_json(path, content, indent=1)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def commit() -> str:
    """The checkout's commit, marked when its files differ from it; `unknown` for an installed package."""
    here = Path(__file__).parent
    asked = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(asked, cwd=here, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def run_of(row: Row) -> str:
    """How long the recipe's own number of iterations takes at a training row's pace."""
    hours = row["hours"]
    return f"{row['run_iterations']:,} in " + (f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min")
