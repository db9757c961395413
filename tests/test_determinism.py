"""`runtime.deterministic`: two processes with one seed end in the same bits, another seed in others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import RUN

from fastuda.runs.checkpoint.store import CheckpointStore
from fastuda.runtime.device import versions

TINY = [
    *(*RUN, "demo.num_val=2", "warmup.iterations=2", "train.iterations=50", "train.evaluate_every=60"),
    *("eval.pictures=1", "runtime.deterministic=true", "runtime.loader_threads=4"),
]


def train(folder: Path, cache: Path, *settings: str) -> dict[str, torch.Tensor]:
    """Every tensor of the stage's state after 50 iterations of the whole method, in a process of its own."""
    chosen = [part for setting in (*TINY, *settings) for part in ("--set", setting)]
    command = [sys.executable, "-m", "fastuda_cli.main", "train", "demo", "--run", str(folder), "--device", "cpu"]
    environment = {**os.environ, "FASTUDA_CACHE": str(cache), "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}
    subprocess.run([*command, *chosen], check=True, env=environment, capture_output=True)
    return load_file(CheckpointStore(folder / "checkpoints").files()[0].path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def test_fifty_iterations_end_in_the_same_bits_and_another_seed_in_others(runs: Path) -> None:
    first = train(runs / "first", runs / "cache")
    second = train(runs / "second", runs / "cache")
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert any(name.startswith("momentum.") for name in first)
    other = train(runs / "other", runs / "cache", "seed=1", "train.iterations=2")
    weights = [name for name in first if name.endswith("conv1.weight")]
    assert all(not torch.equal(first[name], other[name]) for name in weights)


def test_a_result_says_what_it_takes_to_have_it_again(runs: Path) -> None:
    first, second, other = (
        json.loads((runs / run / "results.json").read_text()) for run in ("first", "second", "other")
    )
    assert first["data"] == second["data"]
    assert len(set(first["data"].values())) == 3
    assert (first["seed"], other["seed"]) == (0, 1)
    assert first["versions"] == versions()
    assert f"train demo --run {runs / 'first'} --device cpu" in first["command"]
    assert "--set runtime.deterministic=true" in first["command"]
    assert len(first["date"]) == 16
    for stage in ("source_only", "adapted"):
        assert first[stage]["last"] == second[stage]["last"]
