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

Row = dict[str, Any]


def stamp(packages: Sequence[str]) -> Row:
    """What a row needs to be compared later: processor, cores in use, how busy they are, versions, commit, date."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in packages},
        "commit": _commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def gpu(device: torch.device) -> Row:
    """A GPU's name, power limit in watts and driver; None each for a CPU, or where nvidia-smi does not say."""
    if device.type != "cuda":
        return {"gpu": None, "power_limit_w": None, "driver": None}
    uuid = torch.cuda.get_device_properties(device).uuid
    asked = ["nvidia-smi", f"--id=GPU-{uuid}", "--query-gpu=power.limit,driver_version"]
    try:
        said = subprocess.run([*asked, "--format=csv,noheader,nounits"], capture_output=True, text=True, check=True)
        power, driver = (part.strip() for part in said.stdout.split(","))
        watts = float(power)
    except (OSError, subprocess.CalledProcessError, ValueError):
        return {"gpu": torch.cuda.get_device_name(device), "power_limit_w": None, "driver": None}
    return {"gpu": torch.cuda.get_device_name(device), "power_limit_w": watts, "driver": driver}


def summary(values: Sequence[float]) -> Row:
    """Number of repeats, median and spread (largest minus smallest) of repeated measurements."""
    return {
        "repeats": len(values),
        "median": round(statistics.median(values), 4),
        "spread": round(max(values) - min(values), 4),
    }


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows to a JSON file, replacing those of an earlier run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(rows), indent=1) + "\n")


def _commit() -> str:
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
