"""Ranks that are killed at random moments: the job says which, starts anew, and ends as if nothing had happened.

FASTUDA_KILLS sets how many kills there are beside the last one; one without it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import settings
from safetensors.torch import load_file
from test_ranks_run import require_same_run
from tiny import DEMO

KILLS = int(os.environ.get("FASTUDA_KILLS", "1"))
LONG = (
    *DEMO,
    *("warmup.iterations=4", f"train.iterations={60 * (KILLS + 1)}", "train.evaluate_every=60"),
    "train.checkpoint_every=7",
)
"""More than is trained between all kills, so that none comes too late."""
SECONDS = 30
"""From a kill to the job's end."""


def command(path: Path, *more: str) -> list[str]:
    own = ["train", "demo", "--run", str(path), "--gpus", "2", "--device", "cpu", *settings(*LONG), *more]
    return [sys.executable, "-m", "fastuda_cli", *own]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "FASTUDA_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1", "COLUMNS": "300"}


def ranks_of(job: int) -> list[int]:
    """The rank processes of a job that are there by now."""
    found: list[int] = []
    for task in Path(f"/proc/{job}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return [process for process in found if b"fastuda_cli" in Path(f"/proc/{process}/cmdline").read_bytes()]


def kill_one(job: subprocess.Popen[bytes], chance: random.Random, dead: set[int]) -> None:
    """Kill any rank at a random moment of its life, from its start to well into the training."""
    until = time.monotonic() + 60
    while len(alive := [one for one in ranks_of(job.pid) if one not in dead]) < 2:
        assert job.poll() is None, "the job ended before it was killed"
        assert time.monotonic() < until, "the ranks did not come back"
        time.sleep(0.05)
    time.sleep(chance.uniform(0, 10))
    alive = [one for one in ranks_of(job.pid) if one not in dead]
    victim = chance.choice(alive)
    dead.update(alive)
    os.kill(victim, signal.SIGKILL)


def test_a_job_whose_ranks_are_killed_ends_as_one_that_was_left_alone(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    chance = random.Random(KILLS)
    subprocess.run(command(tmp_path / "alone"), env=environment, check=True, capture_output=True)

    path, dead = tmp_path / "killed", set[int]()
    again = [*command(path), "--max-restarts", str(KILLS)]
    with (tmp_path / "heard.txt").open("wb") as heard:
        job = subprocess.Popen(again, env=environment, stdout=heard, stderr=subprocess.STDOUT)
        for _ in range(KILLS + 1):  # of which the last is one too many
            kill_one(job, chance, dead)
        began = time.monotonic()
        assert job.wait(2 * SECONDS) == 1
    assert time.monotonic() - began < SECONDS
    text = (tmp_path / "heard.txt").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("error: ")]
    assert "was ended by SIGKILL" in line
    assert any(f"rank {rank} on {os.uname().nodename} (process " in line for rank in (0, 1))
    assert f"goes on from its last checkpoint with --run {path} --resume" in line or not (path / "run.json").exists()

    subprocess.run([*command(path), "--resume"], env=environment, check=True, capture_output=True)
    require_same_run(path, tmp_path / "alone")
    newest = [sorted((one / "checkpoints").glob("*.state.safetensors"))[-1] for one in (path, tmp_path / "alone")]
    states = [load_file(file) for file in newest]
    assert all(bool((states[0][name] == states[1][name]).all()) for name in states[1])
    results = json.loads((path / "results.json").read_text())
    assert results["adapted"] == json.loads((tmp_path / "alone" / "results.json").read_text())["adapted"]


def test_a_job_that_is_asked_to_stop_saves_and_says_so(tmp_path: Path, environment: dict[str, str]) -> None:
    path = tmp_path / "run"
    job = subprocess.Popen(command(path), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    until = time.monotonic() + 90
    while not list((path / "checkpoints").glob("adapted-*")) and time.monotonic() < until:
        time.sleep(0.1)
    job.send_signal(signal.SIGTERM)
    text = job.communicate(timeout=60)[0].decode()
    assert job.returncode == 75, text
    (line,) = [line for line in text.splitlines() if "stopped" in line]
    assert line.startswith("stopped: SIGTERM: stopped at iteration ")
    again = f"fastuda train {path / 'recipe.toml'} --run {path} --resume --gpus 2"
    assert f"everything saved; continue with `{again}`" in line


def test_what_the_user_can_mend_is_told_once_with_rank_and_host(tmp_path: Path, environment: dict[str, str]) -> None:
    missing = ["--source", str(tmp_path / "nowhere"), "--target", str(tmp_path / "nowhere")]
    done = subprocess.run(
        [*command(tmp_path / "run"), *missing], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.count("nowhere") == 1, done.stderr
    tellers = [f"error: rank {rank} on {os.uname().nodename}: {tmp_path / 'nowhere'}: " for rank in (0, 1)]
    assert any(teller in done.stderr for teller in tellers), done.stderr
    more = subprocess.run(
        [*command(tmp_path / "run"), "--set", "train.batch=1"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert more.returncode == 2
    assert "train.batch: no such field" in more.stderr
