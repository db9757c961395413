"""Studies on a tiny drawn demo: the same bits as plain runs, what a kill leaves, what fails alone."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from tiny import RUN

import fastuda.training.iteration as iteration_module
from fastuda.errors import FastudaError, UsageError
from fastuda.files.lock import HeldError, held
from fastuda.recipe.file import load_recipe
from fastuda.report.display import Display
from fastuda.runtime.stop import StoppedError
from fastuda.study.conduct import conduct, failures
from fastuda.study.plan import Plan, plan_repeats, plan_study
from fastuda.study.table import Row, Table, load_table
from fastuda.training.run import train

TINY = [
    *(*RUN, "model.width=0.0625"),
    *("warmup.iterations=2", "train.iterations=3", "train.evaluate_every=9", "eval.pictures=1"),
]
ROWS = (
    Row(name="source only", variant="source-only"),
    Row(name="CMix", variant="cmix"),
    Row(name="DSP", variant="dsp-soft"),
    Row(name="all"),
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [*TINY, f"data.cache={tmp_path_factory.mktemp('cache')}"]


@pytest.fixture
def study(settings: list[str], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def run(folder: Path = tmp_path / "study", *more: str, seeds: tuple[int, ...] = (0,)) -> dict[str, Any]:
        plan = plan_study(Table(title="t", rows=ROWS, control=False), "demo", seeds, [*settings, *more], folder)
        return conducted(plan, folder)

    return run


def conducted(plan: Plan, folder: Path, name: str = "t") -> dict[str, Any]:
    return conduct(plan, folder, name, device="cpu", display=Display(Console(file=io.StringIO(), width=200)))


@pytest.fixture(scope="module")
def finished(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("studies") / "finished"
    plan = plan_study(Table(title="t", rows=ROWS, control=False), "demo", (0, 1), settings, folder)
    return folder, conducted(plan, folder)


def model(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / "adapted-last.safetensors")


def same(one: Path, other: Path) -> bool:
    a, b = model(one), model(other)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def scores(content: dict[str, Any]) -> list[list[float]]:
    return [[cell["last"]["miou"] for cell in row["cells"]] for row in content["rows"]]


def first_seed(finished: Any) -> list[list[float]]:
    return [found[:1] for found in scores(finished[1])]


def test_a_study_leaves_its_report_and_picture_and_every_run(finished: Any) -> None:
    folder, content = finished
    kept = json.loads((folder / "t.json").read_text())
    assert scores(kept) == scores(content)
    assert [len(found) for found in scores(content)] == [2, 2, 2, 2]
    assert (folder / "t.png").stat().st_size > 10_000
    assert {p.name for p in folder.iterdir()} == {
        *("warm-up", "cmix", "dsp-soft", "base"), *("t.json", "t.png", "t-curves.png", ".lock")
    }  # fmt: skip


def test_a_row_ends_in_the_same_bits_as_the_plain_run(finished: Any, settings: list[str], tmp_path: Path) -> None:
    recipe = load_recipe("demo+cmix", [*settings, "seed=1"])
    train(recipe, tmp_path / "plain", name="x", device="cpu", display=Display(Console(file=io.StringIO())))
    assert same(tmp_path / "plain", finished[0] / "cmix" / "seed-1")
    assert not same(tmp_path / "plain", finished[0] / "base" / "seed-1")


def test_finished_runs_are_not_run_again(
    finished: Any, study: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished[0], tmp_path / "study")
    monkeypatch.setattr(iteration_module, "warmup_step", None)
    monkeypatch.setattr(iteration_module, "adaptation_step", None)
    assert scores(study(seeds=(0, 1))) == scores(finished[1])


def test_a_seed_more_runs_that_seed_alone(finished: Any, study: Callable[..., Any], tmp_path: Path) -> None:
    shutil.copytree(finished[0], tmp_path / "study")
    for row in ("warm-up", "cmix", "dsp-soft", "base"):
        shutil.rmtree(tmp_path / "study" / row / "seed-1")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "study").rglob("seed-0/results.json")}
    assert scores(study(seeds=(0, 1))) == scores(finished[1])
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_a_stopped_study_goes_on_to_the_same_bits(
    finished: Any, study: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = iteration_module.adaptation_step, []

    def interrupted(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 5:  # the second iteration of the second row
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(iteration_module, "adaptation_step", interrupted)
        with pytest.raises(StoppedError, match="the same command goes on"):
            study()
    assert scores(study()) == first_seed(finished)
    for row in ("cmix", "dsp-soft", "base"):
        assert same(tmp_path / "study" / row / "seed-0", finished[0] / row / "seed-0")


def test_a_run_killed_before_its_first_checkpoint_starts_anew(
    finished: Any, study: Callable[..., Any], tmp_path: Path
) -> None:
    shutil.copytree(finished[0], tmp_path / "study")
    cell = tmp_path / "study" / "cmix" / "seed-0"
    for path in [*cell.glob("checkpoints/*"), cell / "results.json"]:
        path.unlink()
    assert scores(study()) == first_seed(finished)
    assert same(cell, finished[0] / "cmix" / "seed-0")


@pytest.mark.parametrize("change", ["method.mixed_weight=0.5", "model.aspp=[6, 12]", "model.auxiliary=false"])
def test_another_recipe_in_the_same_folder_is_refused(change: str, finished: Any, study: Callable[..., Any]) -> None:
    field = re.escape(change.partition("=")[0])
    with pytest.raises(UsageError, match=rf"a run of another recipe; choose another --run folder, or undo:\n  {field}"):
        study(finished[0], change)


def test_a_finished_warm_up_serves_another_adaptation(
    finished: Any, study: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished[0] / "warm-up", tmp_path / "study" / "warm-up")
    monkeypatch.setattr(iteration_module, "warmup_step", None)
    content = study(tmp_path / "study", "method.mixed_weight=0.7", "train.optimizer.lr_head=1e-3")
    assert failures(content) == []
    assert content["rows"][0]["cells"][0]["last"] == finished[1]["rows"][0]["cells"][0]["last"]
    with pytest.raises(UsageError, match=r"a run of another recipe; .*\n  warmup\.optimizer\.lr_head"):
        study(tmp_path / "study", "warmup.optimizer.lr_head=1e-3")


def test_an_unfinished_warm_up_does_not_go_on_for_another_adaptation(
    finished: Any, study: Callable[..., Any], tmp_path: Path
) -> None:
    shutil.copytree(finished[0] / "warm-up", tmp_path / "study" / "warm-up")
    (tmp_path / "study/warm-up/seed-0/results.json").unlink()
    with pytest.raises(UsageError, match=r"a run of another recipe; .*\n  method\.mixed_weight"):
        study(tmp_path / "study", "method.mixed_weight=0.7")


def test_what_only_this_call_computes_with_may_change(finished: Any, study: Callable[..., Any], tmp_path: Path) -> None:
    shutil.copytree(finished[0], tmp_path / "study")
    assert scores(study(tmp_path / "study", "runtime.loader_threads=2")) == first_seed(finished)


def test_an_empty_folder_left_by_a_kill_is_used(finished: Any, study: Callable[..., Any], tmp_path: Path) -> None:
    shutil.copytree(finished[0], tmp_path / "study")
    cell = tmp_path / "study" / "cmix" / "seed-0"
    shutil.rmtree(cell)
    (cell / "checkpoints").mkdir(parents=True)
    assert scores(study()) == first_seed(finished)


def test_a_folder_with_something_else_in_it_is_left_alone(
    finished: Any, study: Callable[..., Any], tmp_path: Path
) -> None:
    shutil.copytree(finished[0], tmp_path / "study")
    cell = tmp_path / "study" / "base" / "seed-0"
    shutil.rmtree(cell)
    cell.mkdir()
    (cell / "thesis.txt").write_text("precious")
    assert len(failures(study())) == 1
    assert (cell / "thesis.txt").read_text() == "precious"


def test_two_studies_do_not_share_a_folder_at_once(study: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    message = r"study: another process is running a study here \(process \d+"
    with held(tmp_path / "study", "running a study", wait=False), pytest.raises(HeldError, match=message):
        study()


def test_missing_data_is_said_once_before_anything_runs(tmp_path: Path) -> None:
    plan = plan_study(load_table("table3"), "gta2cs", (0,), (), tmp_path / "study")
    with pytest.raises(FastudaError, match="gta5"):
        conducted(plan, tmp_path / "study")
    assert not list((tmp_path / "study").glob("*.json"))


def test_a_run_that_fails_does_not_end_the_study_and_is_tried_again(
    finished: Any, study: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = iteration_module.adaptation_step

    def broken(state: Any, source: Any, target: Any, recipe: Any, *rest: Any) -> Any:
        if recipe.source_mix.enabled:
            with torch.no_grad():
                state.student.head.branches[0].bias.fill_(torch.nan)
        return original(state, source, target, recipe, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(iteration_module, "adaptation_step", broken)
        content = study()
    (failure,) = failures(content)
    assert failure.startswith("DSP, seed 0: the loss was not finite")
    assert [len(found) for found in scores(content)] == [1, 1, 0, 1]
    assert scores(study()) == first_seed(finished)


def test_rows_that_start_from_a_failed_warm_up_fail_with_it(
    study: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = iteration_module.warmup_step

    def broken(state: Any, *rest: Any) -> Any:
        with torch.no_grad():
            state.student.head.branches[0].bias.fill_(torch.nan)
        return original(state, *rest)

    monkeypatch.setattr(iteration_module, "warmup_step", broken)
    lines = failures(study())
    assert len(lines) == 4
    assert sum("its warm-up failed" in line for line in lines) == 3


def test_repeats_report_both_stages_and_equal_plain_runs(finished: Any, settings: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "repeats"
    content = conducted(plan_repeats(load_recipe("demo", settings), "demo", 2, folder), folder, "repeat")
    assert [row["name"] for row in content["rows"]] == ["source only", "adapted"]
    assert scores(content) == [scores(finished[1])[0], scores(finished[1])[3]]
    assert same(folder / "seed-1", finished[0] / "base" / "seed-1")


def test_a_network_given_is_scored_and_adapted(finished: Any, settings: list[str], tmp_path: Path) -> None:
    init = finished[0] / "warm-up" / "seed-0" / "checkpoints" / "source_only-last.safetensors"
    plan = plan_study(Table(title="t", rows=ROWS[:2], control=False), "demo", (0,), settings, tmp_path / "s", init=init)
    assert scores(conducted(plan, tmp_path / "s")) == [scores(finished[1])[0][:1], scores(finished[1])[1][:1]]


def test_rows_unlike_the_control_are_told_before_anything_runs(settings: list[str], tmp_path: Path) -> None:
    rows = (Row(name="all"), Row(name="longer", set=("train.iterations=900",)))
    plan, out = plan_study(Table(title="t", rows=rows), "demo", (0,), settings, tmp_path / "study"), io.StringIO()
    with pytest.raises(StoppedError):
        conduct(
            plan, tmp_path / "study", "t", device="cpu", display=Display(Console(file=out, width=200)), deadline=0.0
        )
    assert "unlike the control: longer; train.iterations = 900, not 3" in out.getvalue()
