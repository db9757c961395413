"""Runs of the real command that are killed and signalled at any moment end as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from faults.runs import differences, finished, killed, started, wait_for

from fastuda.runs.checkpoint.store import CheckpointStore


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def whole(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    code, output = finished(folder, cache)
    assert code == 0, output
    return folder


def test_a_run_killed_again_and_again_ends_in_the_same_bits_scores_and_rows(whole: Path, tmp_path: Path) -> None:
    folder, rng = tmp_path / "run", random.Random(0)
    for _ in range(4):  # into a cache of its own, so that drawing and packing are killed too
        killed(folder, tmp_path / "cache", rng.uniform(4, 14), "--resume")
    code, output = finished(folder, tmp_path / "cache", "--resume")
    assert code == 0, output
    assert differences(whole, folder) == []
    assert not list(folder.rglob("*.part"))


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_within_two_seconds_with_a_code_of_its_own(
    number: signal.Signals, whole: Path, cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with started(folder, cache) as process:
        wait_for(lambda: len(CheckpointStore(folder / "checkpoints").files()) > 1)
        asked = time.monotonic()
        os.killpg(process.pid, number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output
    assert time.monotonic() - asked < 30  # two seconds and an iteration where nobody else computes
    assert f"{number.name}: stopped at iteration" in output
    assert f"--run {folder} --resume" in output
    assert "Traceback" not in output
    code, output = finished(folder, cache, "--resume")
    assert code == 0, output
    assert differences(whole, folder) == []


def test_a_time_that_is_over_ends_a_run_like_a_signal(cache: Path, tmp_path: Path) -> None:
    code, output = finished(tmp_path / "run", cache, "--max-time", "1s")
    assert code == 75, output
    assert "--max-time is over" in output
