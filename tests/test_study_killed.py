"""A study of two processes gives the table of one, and goes on to it after a stop and a kill that leave no process."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cell_stand_ins import is_alive
from rich.console import Console
from test_study_run import ROWS, TINY

from fastuda.recipe.file import load_recipe
from fastuda.report.display import Display
from fastuda.runtime.stop import StoppedError
from fastuda.study.conduct import conduct
from fastuda.study.plan import Plan, plan_repeats, plan_study
from fastuda.study.table import Table

COMMAND = [sys.executable, "-c", "from fastuda_cli.main import app; app()"]
PASSING = ("seconds", "date", "command")


def conducted(plan: Plan, folder: Path, workers: int) -> dict[str, Any]:
    """What lies in the study's file in the end."""
    display = Display(Console(file=io.StringIO(), width=200))
    conduct(plan, folder, "repeat", device="cpu", display=display, workers=workers)
    content: dict[str, Any] = json.loads((folder / "repeat.json").read_text())
    return content


def lasting(content: Any) -> Any:
    """Without what differs from one time to the next."""
    if isinstance(content, dict):
        return {key: lasting(value) for key, value in content.items() if key not in PASSING}
    return [lasting(one) for one in content] if isinstance(content, list) else content


def wait_for(found: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < until
        time.sleep(0.02)


def learnt(folder: Path) -> int:
    """Bytes that the runs have written about their training."""
    return sum(log.stat().st_size for log in folder.glob("seed-*/log.jsonl"))


def children(process: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def test_two_processes_give_the_table_of_one(cache: Path, tmp_path: Path) -> None:
    settings = [*TINY, f"data.cache={cache}"]
    table = Table(title="t", rows=ROWS[:2], control=True)
    one, two = (
        conducted(plan_study(table, "demo", (0,), settings, tmp_path / name), tmp_path / name, workers)
        for name, workers in (("one", 1), ("two", 2))
    )
    assert [len(row["cells"]) for row in two["rows"]] == [1, 1, 1]
    assert lasting(two) == lasting(one)


def test_a_stopped_and_then_killed_study_goes_on_to_the_same_table(cache: Path, tmp_path: Path) -> None:
    changes = ("train.iterations=40", "train.log_every=1", "train.evaluate_every=1000", f"data.cache={cache}")
    settings = [*TINY, *changes]
    recipe, folder = load_recipe("demo", settings), tmp_path / "study"
    expected = conducted(plan_repeats(recipe, "demo", 2, tmp_path / "one"), tmp_path / "one", 1)

    def stop() -> None:
        wait_for(lambda: learnt(folder) > 0, 60)
        os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=stop)
    asking.start()
    with pytest.raises(StoppedError, match=r"seed-\d: stopped \(SIGTERM\), everything saved"):
        conducted(plan_repeats(recipe, "demo", 2, folder), folder, 2)
    asking.join()

    chosen = [part for setting in settings for part in ("--set", setting)]
    command = [*COMMAND, "train", "demo", "--repeat", "2", "--workers", "2", "--device", "cpu", "--run", str(folder)]
    before = learnt(folder)
    # One thread, as the tests' own process has: the last bits depend on the number.
    with subprocess.Popen([*command, "--resume", *chosen], env=os.environ | {"OMP_NUM_THREADS": "1"}) as study:
        wait_for(lambda: learnt(folder) > before, 60)
        processes = children(study.pid)
        study.kill()
    assert processes
    wait_for(lambda: not any(is_alive(process) for process in processes), 30)
    assert not list(folder.glob("seed-*/results.json"))

    assert lasting(conducted(plan_repeats(recipe, "demo", 2, folder), folder, 2)) == lasting(expected)
    found = [json.loads(file.read_text()) for file in folder.glob("seed-*/results.json")]
    assert max(results["resumed"] for results in found) == 2
