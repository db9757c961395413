"""Runs that were stopped or killed: what goes on, to which end, and what is refused."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner
from whole_runs import TINY, near_the_end, run, saved_state

import fastuda
import fastuda.training.iteration as iteration_module
from fastuda.errors import FastudaError, UnreadableError, UsageError
from fastuda.recipe import Recipe
from fastuda.recipe.file import dump_recipe, load_recipe
from fastuda.runtime.stop import StoppedError
from fastuda_cli.main import app


@pytest.mark.parametrize(("stage", "at"), [("warm-up", 1), ("warm-up", 3), ("adaptation", 2), ("adaptation", 5)])
def test_a_stopped_and_resumed_run_ends_in_the_same_bits(
    stage: str, at: int, finished: Any, tmp_path: Path, tiny: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    step = "warmup_step" if stage == "warm-up" else "adaptation_step"
    stopped(tiny(), path, step, at, monkeypatch, f"SIGTERM: stopped at iteration {at} of the {stage}.*--resume")
    results, _ = run(tiny(), path, resume=True)

    expected, got = saved_state(finished[0]), saved_state(path)
    assert expected.keys() == got.keys()
    assert [key for key in expected if not torch.equal(expected[key], got[key])] == []
    assert results["adapted"]["iou"] == finished[1]["adapted"]["iou"]
    assert results["source_only"]["iou"] == finished[1]["source_only"]["iou"]


@pytest.mark.parametrize("asked", ["named", "made in Python"])
@pytest.mark.parametrize("at", ["before the first checkpoint", "in the warm-up", "in the adaptation"])
def test_the_command_that_a_stopped_run_names_goes_on_with_it(
    asked: str, at: str, cache: Path, finished: Any, tiny: Callable[..., Recipe], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path = tmp_path / "a run"
    recipe = "demo" if asked == "named" else tiny()
    settings = [*TINY, f"data.cache={cache}"] if asked == "named" else []
    step = {"in the warm-up": "warmup_step", "in the adaptation": "adaptation_step"}.get(at)
    original: Any = step and getattr(iteration_module, step)

    def interrupted(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    for _ in range(2):  # the run that is gone on with can be stopped and gone on with too
        with monkeypatch.context() as patch:
            if step:
                patch.setattr(iteration_module, step, interrupted)
            with pytest.raises(StoppedError) as told:
                fastuda.train(
                    recipe, path, settings=settings, resume=path.exists(), max_time=None if step else "0.001s",
                    device="cpu", display=False,
                )  # fmt: skip
        command = re.search(r"continue with `fastuda (train .*)` \(in Python resume=True\)$", str(told.value))
        assert command is not None, told.value
        recipe = path / "recipe.toml"
        settings = []
    gone_on = CliRunner().invoke(app, [*shlex.split(command[1]), "--device", "cpu"], env={"COLUMNS": "300"})
    assert gone_on.exit_code == 0, (gone_on.output, gone_on.exception)
    results = json.loads((path / "results.json").read_text())
    assert results["recipe"] == ("demo" if asked == "named" else "own")
    assert results["adapted"]["iou"] == finished[1]["adapted"]["iou"]
    # By the name that it was begun with it goes on as ever.
    again: Any = tiny() if asked == "made in Python" else "demo"
    assert fastuda.train(again, path, resume=True, device="cpu", display=False)["adapted"] == results["adapted"]


def test_another_recipe_beside_the_runs_own_is_another_run(
    finished: Any, tmp_path: Path, tiny: Callable[..., Recipe]
) -> None:
    path = near_the_end(finished, tmp_path)
    (path / "pictures" / "recipe.toml").write_text(dump_recipe(tiny()))
    with pytest.raises(UsageError, match="recipe: the run has demo, you ask for recipe"):
        fastuda.train(path / "pictures" / "recipe.toml", path, resume=True, device="cpu", display=False)


def test_resuming_a_finished_run_trains_nothing_and_keeps_its_results(
    finished: Any, tiny: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iteration_module, "adaptation_step", None)
    results, _ = run(tiny(), finished[0], resume=True)
    assert results["adapted"] == finished[1]["adapted"]


def test_a_run_killed_before_its_first_evaluation_resumes(
    finished: Any, tmp_path: Path, tiny: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(iteration_module, "warmup_step", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tiny(), tmp_path / "run")
    run(tiny(), tmp_path / "run", resume=True)
    expected, got = saved_state(finished[0]), saved_state(tmp_path / "run")
    assert all(torch.equal(expected[key], got[key]) for key in expected)


def test_resuming_with_another_recipe_names_the_field(finished: Any, tiny: Callable[..., Recipe]) -> None:
    with pytest.raises(UsageError, match=r"method\.tau: the run has 0\.95, you ask for 0\.5"):
        run(tiny("method.tau=0.5"), finished[0], resume=True)


def stopped(
    recipe: Recipe, path: Path, step: str, at: int, monkeypatch: pytest.MonkeyPatch, said: str = "stopped"
) -> dict[str, bytes]:
    """A run stopped at an iteration of a stage, whose step that is; returns the content of its files."""
    original, calls = getattr(iteration_module, step), []

    def interrupted(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(iteration_module, step, interrupted)
        with pytest.raises(StoppedError, match=said):
            run(recipe, path)
    return contents(path)


def contents(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("step", "at", "settings", "message"),
    [
        ("adaptation_step", 5, ["train.iterations=4"],
         r"adapted-0000005\.state\.safetensors: 5 iterations are done already, and train\.iterations=4 would end this "
         r"stage before; ask for 5 or more"),
        ("adaptation_step", 1, ["train.iterations=0"], r"train\.iterations=0 would end .*ask for 1 or more"),
        ("warmup_step", 3, ["warmup.iterations=2"], r"3 iterations .* warmup\.iterations=2 .*ask for 3 or more"),
        ("warmup_step", 1, ["model.width=0.25"],
         r"source_only-0000001\.state\.safetensors: this checkpoint is of another network: student\.\S+ is \[8, "),
        ("warmup_step", 1, ["classes.names=['a', 'b']", "classes.palette=[[1, 2, 3], [4, 5, 6]]"],
         r"of another network: student\.head\S+ is \[11, .*\], not \[2, "),
    ],
)  # fmt: skip
def test_what_force_cannot_go_on_with_is_refused_in_one_line_and_nothing_is_written(
    step: str,
    at: int,
    settings: list[str],
    message: str,
    tmp_path: Path,
    tiny: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = stopped(tiny(), tmp_path / "run", step, at, monkeypatch)
    with pytest.raises(FastudaError, match=message) as said:
        run(tiny(*settings), tmp_path / "run", resume=True, force=True)
    assert "\n" not in str(said.value)
    assert contents(tmp_path / "run") == left


def test_force_may_end_a_stage_where_it_is(
    tmp_path: Path, tiny: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(tiny(), tmp_path / "run", "adaptation_step", 2, monkeypatch)
    results, _ = run(tiny("train.iterations=2"), tmp_path / "run", resume=True, force=True)
    assert results["adapted"]["last"]["iteration"] == 2
    assert results["forced"] == ["train.iterations: the run has 6, you ask for 2"]


def test_resuming_where_nothing_ran_yet_starts_there(
    tmp_path: Path, tiny: Callable[..., Recipe], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "fastuda"):
        run(tiny("train.iterations=1", "warmup.iterations=0"), tmp_path / "none", resume=True)
    assert "none: no checkpoint here yet, so the run starts from the beginning" in caplog.text


def test_a_run_from_init_resumes_without_it(
    finished: Any, tmp_path: Path, tiny: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    init = finished[0] / "checkpoints" / "source_only-last.safetensors"
    original, calls = iteration_module.adaptation_step, []

    def interrupted(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(iteration_module, "adaptation_step", interrupted)
        with pytest.raises(StoppedError):
            run(tiny(), tmp_path / "run", init=init)
    with pytest.raises(UsageError, match=r"--init: the run has .*source_only-last\.safetensors, you ask for /other"):
        run(tiny(), tmp_path / "run", init=Path("/other"), resume=True)
    results, output = run(tiny(), tmp_path / "run", resume=True)
    assert results["source_only"]["last"]["iteration"] == 0
    assert results["source_only"]["iou"] == finished[1]["source_only"]["iou"]
    assert "Warm-up" not in output
    expected, got = saved_state(finished[0]), saved_state(tmp_path / "run")
    assert all(torch.equal(expected[key], got[key]) for key in expected)


def test_a_run_stopped_before_its_first_checkpoint_starts_as_it_was_asked_for(
    finished: Any, tmp_path: Path, tiny: Callable[..., Recipe]
) -> None:
    init, path = finished[0] / "checkpoints" / "source_only-last.safetensors", tmp_path / "run"
    with pytest.raises(StoppedError, match="--max-time is over: stopped before the first checkpoint; nothing is lost"):
        # A cache of its own, so that there is something to draw and to leave.
        run(tiny(f"data.cache={tmp_path / 'cache'}"), path, init=init, deadline=0.0)
    with pytest.raises(UsageError, match=r"begun with --init .*source_only-last\.safetensors, and you ask for /other"):
        run(tiny(), path, init=Path("/other"), resume=True)
    results, output = run(load_recipe(str(path / "recipe.toml")), path, resume=True)
    assert "Warm-up" not in output
    assert results["source_only"]["last"]["iteration"] == 0
    expected, got = saved_state(finished[0]), saved_state(path)
    assert all(torch.equal(expected[key], got[key]) for key in expected)


def test_a_record_that_the_system_refuses_is_not_written_over_even_by_force(
    finished: Any, tmp_path: Path, tiny: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, original = near_the_end(finished, tmp_path), Path.read_text
    before = (path / "run.json").read_bytes()

    def refused(file: Path, *rest: Any, **options: Any) -> str:
        if file.name == "run.json":
            raise OSError(errno.EIO, "Input/output error")
        return original(file, *rest, **options)

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(UnreadableError, match=r"run\.json: cannot be read \(Input/output error\).*with --resume$"):
        run(tiny(), path, resume=True, force=True)
    assert (path / "run.json").read_bytes() == before
