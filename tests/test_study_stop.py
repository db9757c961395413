"""A stop in a study is heard in the last moments of a run and between two; what is damaged fails its run alone."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from fastuda.recipe import Recipe
from fastuda.recipe.file import load_recipe
from fastuda.report.display import Display
from fastuda.runtime.stop import SIGNALS, StoppedError, StopRequest
from fastuda.study import conduct as conduct_module
from fastuda.study import run as run_module
from fastuda.study.conduct import conduct, failures
from fastuda.study.plan import Plan, plan_repeats
from fastuda_cli.main import app


def results(recipe: Recipe) -> dict[str, Any]:
    """What a run that scores the same every time leaves."""
    scores = {"miou": 40.0, "iou": dict.fromkeys(recipe.classes.build().names, 40.0), "subsets": {}, "protocol": "full"}
    stage = {"last": scores, "best": scores}
    origin = {"data": {}, "device": "cpu", "versions": {}, "date": "2026-01-02 03:04"}
    return {"source_only": stage, "adapted": stage, "seconds": {}, **origin}


class Runs:
    """Stands in for `train`: leaves results at once, and knows which seeds ran and what stop they were given."""

    def __init__(self) -> None:
        self.seeds: list[int] = []
        self.at_the_end: Callable[[int], None] = lambda seed: None

    def __call__(self, recipe: Recipe, folder: Path, *, stop: StopRequest, **_: Any) -> dict[str, Any]:
        assert stop.received is None
        self.seeds.append(recipe.seed)
        folder.mkdir(parents=True)
        self.at_the_end(recipe.seed)
        (folder / "results.json").write_text(json.dumps(results(recipe)))
        return results(recipe)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    runs = Runs()
    monkeypatch.setattr(run_module, "train", runs)
    monkeypatch.setattr(conduct_module, "study_chart", lambda *_: None)  # it takes its time
    return runs


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return plan_repeats(load_recipe("demo"), "demo", 3, tmp_path / "study")


def conducted(plan: Plan, folder: Path, deadline: float | None = None) -> dict[str, Any]:
    display = Display(Console(file=io.StringIO()))
    return conduct(plan, folder, "repeat", device="cpu", display=display, deadline=deadline)


def asking(number: signal.Signals, at: int) -> Callable[[int], None]:
    """Sends the signal at the end of the run of seed `at`."""
    return lambda seed: os.kill(os.getpid(), number) if seed == at else None


@pytest.mark.parametrize("number", SIGNALS)
def test_a_stop_in_the_last_moments_of_a_run_ends_the_study_before_the_next(
    number: signal.Signals, runs: Runs, plan: Plan, tmp_path: Path
) -> None:
    runs.at_the_end = asking(number, 1)
    with pytest.raises(StoppedError, match=rf"seed-2: stopped \({number.name}\), .*the same command goes on"):
        conducted(plan, tmp_path / "study")
    assert runs.seeds == [0, 1]
    assert (tmp_path / "study" / "seed-1" / "results.json").exists()
    assert not (tmp_path / "study" / "seed-2").exists()
    assert [len(row["cells"]) for row in conducted(plan, tmp_path / "study")["rows"]] == [3, 3]
    assert runs.seeds == [0, 1, 2]


def test_a_stop_between_two_runs_is_heard(
    runs: Runs, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conduct_module, "write_report", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(StoppedError):
        conducted(plan, tmp_path / "study")
    assert runs.seeds == [0]


def test_a_time_that_is_over_begins_no_run(runs: Runs, plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(StoppedError, match=r"seed-0: stopped \(--max-time is over\)"):
        conducted(plan, tmp_path / "study", deadline=0.0)
    assert runs.seeds == []


def test_a_stop_when_nothing_is_left_to_run_lets_the_study_end(runs: Runs, plan: Plan, tmp_path: Path) -> None:
    runs.at_the_end = asking(signal.SIGTERM, 2)
    content = conducted(plan, tmp_path / "study")
    assert [len(row["cells"]) for row in content["rows"]] == [3, 3]
    assert (tmp_path / "study" / "repeat.json").exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_repeats_that_are_stopped_at_the_end_of_one_leave_with_the_code_for_requeueing(
    runs: Runs, tmp_path: Path
) -> None:
    runs.at_the_end = asking(signal.SIGUSR1, 0)
    command = ["train", "demo", "--repeat", "3", "--run", str(tmp_path / "runs")]
    stopped = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
    assert stopped.exit_code == 75
    assert "--resume added to the command goes on" in stopped.output
    gone_on = CliRunner().invoke(app, [*command, "--resume"], env={"COLUMNS": "200"})
    assert gone_on.exit_code == 0
    assert runs.seeds == [0, 1, 2]


@pytest.mark.parametrize("content", [b"", b'[source]\nroot = "', b"\xff\xff\0"])
def test_a_recipe_that_was_asked_for_and_is_damaged_fails_its_run_alone(
    content: bytes, runs: Runs, plan: Plan, tmp_path: Path
) -> None:
    asked = tmp_path / "study" / "seed-1.asked.toml"
    asked.parent.mkdir()
    asked.write_bytes(content)
    lines = failures(conducted(plan, tmp_path / "study"))
    assert [line.partition(": ")[2].partition(": damaged (")[0] for line in lines] == [str(asked)] * 2  # a row each
    assert all("\n" not in line and "delete it if the run beside it is of this recipe" in line for line in lines)
    assert runs.seeds == [0, 2]
