"""Tiny runs of the real command, killed, signalled and gone on with, and what two of them have in common."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tiny import RUN

from fastuda.runs.checkpoint.store import CheckpointStore

SETTINGS = (
    *(*RUN, "warmup.iterations=8", "train.iterations=12", "train.evaluate_every=5", "train.log_every=3"),
    *("train.checkpoint_every=1", "eval.pictures=1"),
)
_TIMES = ("time", "iterations_per_second", "waiting_for_data")


def arguments(folder: Path, *options: str, settings: Sequence[str] = ()) -> list[str]:
    """What stands behind `fastuda` to train the demo into `folder`, tiny but for `settings`."""
    chosen = [part for setting in (*SETTINGS, *settings) for part in ("--set", setting)]
    return ["train", "demo", "--run", str(folder), "--device", "cpu", *options, *chosen]


def command(folder: Path, *options: str, settings: Sequence[str] = ()) -> list[str]:
    """The whole command line of that."""
    return [sys.executable, "-m", "fastuda_cli.main", *arguments(folder, *options, settings=settings)]


def started(folder: Path, cache: Path, *options: str) -> subprocess.Popen[str]:
    """The command begun, its output kept in one pipe, in a process group of its own."""
    environment = {**os.environ, "FASTUDA_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command(folder, *options), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def finished(folder: Path, cache: Path, *options: str) -> tuple[int, str]:
    """Exit code and output of the command."""
    with started(folder, cache, *options) as process:
        output, _ = process.communicate(timeout=300)
        return process.returncode, output


def killed(folder: Path, cache: Path, seconds: float, *options: str) -> tuple[int, str]:
    """Exit code and output of the command, ended by SIGKILL after `seconds` unless it was done before."""
    with started(folder, cache, *options) as process:
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
        return process.returncode, output


def wait_for(condition: Any, seconds: float = 120.0) -> None:
    """Return once `condition()` holds; AssertionError when it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def final_state(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the newest checkpoint."""
    return load_file(CheckpointStore(folder / "checkpoints").files()[0].path)


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two finished runs, but for times: tensors, models, scores, rows of the log."""
    a, b = final_state(one), final_state(other)
    found = [f"state: {key}" for key in a.keys() | b.keys() if key not in a or key not in b or not a[key].equal(b[key])]
    for model in sorted(
        path.name for path in (one / "checkpoints").glob("*-*.safetensors") if "state" not in path.name
    ):
        x, y = load_file(one / "checkpoints" / model), load_file(other / "checkpoints" / model)
        found += [f"{model}: {key}" for key in x if not x[key].equal(y[key])]
    results = [json.loads((folder / "results.json").read_text()) for folder in (one, other)]
    found += [f"results: {key}" for key in ("source_only", "adapted", "data") if results[0][key] != results[1][key]]
    if _rows(one) != _rows(other):
        found.append("log.jsonl")
    return found


def _rows(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in _TIMES} for row in rows]
