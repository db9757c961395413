"""Target statistics alone: an adapted stage in which nothing is trained, whole, resumed, from a file, in a study."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor
from whole_runs import TINY, run

import fastuda.training.iteration as iteration_module
import fastuda.training.stage as stage_module
from fastuda.data.datasets import prepare_all, with_demo_data
from fastuda.evaluation.target_statistics import gather_statistics
from fastuda.model.build import build_network
from fastuda.model.passes import Passes
from fastuda.recipe import Recipe
from fastuda.recipe.file import load_recipe
from fastuda.report.display import Display
from fastuda.runs.checkpoint.store import CheckpointStore
from fastuda.study.conduct import conduct, failures
from fastuda.study.plan import plan_study
from fastuda.study.table import Row, Table

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.fixture
def recipe(cache: Path) -> Recipe:
    return load_recipe(
        "demo+statistics", [*(one for one in TINY if "train.iterations" not in one), f"data.cache={cache}"]
    )


def model(path: Path, stage: str) -> dict[str, Tensor]:
    return load_file(path / "checkpoints" / f"{stage}-last.safetensors")


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


def scores(results: dict[str, Any]) -> list[Any]:
    return [results[stage]["last"] for stage in ("source_only", "adapted")]


def test_the_adapted_model_is_the_source_only_one_but_for_its_statistics(
    finished: Any, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iteration_module, "adaptation_step", None)
    results, output = run(recipe, tmp_path / "run")
    before, after = model(tmp_path / "run", "source_only"), model(tmp_path / "run", "adapted")
    assert same(before, model(finished[0], "source_only"))
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved == {name for name in after if name.endswith(STATISTICS[:2])} | {
        name for name in moved if name.endswith(STATISTICS[2])
    }
    assert results["source_only"]["last"] == finished[1]["source_only"]["last"]
    assert results["adapted"]["last"]["iteration"] == 0
    assert results["adapted"]["miou"] != results["source_only"]["miou"]
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [(row["stage"], row["iteration"]) for row in rows if "scores" in row][-1] == ("adapted", 0)
    assert "adaptation" in output


def test_the_statistics_are_those_of_target_training_images(recipe: Recipe, tmp_path: Path) -> None:
    run(recipe, tmp_path / "run")
    placed = with_demo_data(recipe, lambda _: lambda done, total: None)
    data, device = prepare_all(placed, lambda _: lambda done, total: None), torch.device("cpu")
    network = build_network(placed)
    network.load_state_dict(model(tmp_path / "run", "source_only"))
    gather_statistics(network, data.target, placed, Passes.of(placed, device), device)
    assert same(dict(network.state_dict()), model(tmp_path / "run", "adapted"))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_kill_about_the_evaluation_leaves_what_goes_on_to_the_same_bits(
    after: bool, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = run(recipe, tmp_path / "whole")
    gather = stage_module.gather_statistics

    def killed(*arguments: Any) -> None:
        if after:
            gather(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage_module, "gather_statistics", killed)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, tmp_path / "run")
    assert CheckpointStore(tmp_path / "run" / "checkpoints").files()[0].path.name.startswith("adapted-0000000")
    resumed, _ = run(recipe, tmp_path / "run", resume=True)
    assert scores(resumed) == scores(whole)
    assert same(model(tmp_path / "run", "adapted"), model(tmp_path / "whole", "adapted"))


def test_a_run_that_lacks_its_results_alone_gathers_nothing_again(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = run(recipe, tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    (tmp_path / "run" / "checkpoints" / "adapted-last.safetensors").unlink()
    monkeypatch.setattr(stage_module, "gather_statistics", None)
    again, _ = run(recipe, tmp_path / "run", resume=True)
    assert scores(again) == scores(whole)
    assert model(tmp_path / "run", "adapted")


def test_a_network_given_is_scored_as_it_is_and_with_statistics_of_the_target(
    finished: Any, recipe: Recipe, tmp_path: Path
) -> None:
    whole, _ = run(recipe, tmp_path / "whole")
    init = finished[0] / "checkpoints" / "source_only-last.safetensors"
    results, _ = run(recipe, tmp_path / "run", init=init)
    assert same(model(tmp_path / "run", "source_only"), load_file(init))
    assert same(model(tmp_path / "run", "adapted"), model(tmp_path / "whole", "adapted"))
    assert [one["miou"] for one in scores(results)] == [one["miou"] for one in scores(whole)]


def test_a_study_has_the_row_beside_others_that_share_the_warm_up(
    tiny: Callable[..., Recipe], cache: Path, tmp_path: Path
) -> None:
    rows = (
        Row(name="bare", variant="source-only"),
        Row(name="bn", variant="statistics"),
        Row(name="CMix", variant="cmix"),
    )
    plan = plan_study(Table(title="t", rows=rows), "demo", (0, 1), [*TINY, f"data.cache={cache}"], tmp_path / "study")

    def content() -> dict[str, Any]:
        return conduct(plan, tmp_path / "study", "t", device="cpu", display=Display(Console(file=io.StringIO())))

    found = content()
    assert failures(found) == []
    assert [row["name"] for row in found["rows"]] == ["bare", "source only, further", "bn", "CMix"]
    assert {path.name for path in (tmp_path / "study").iterdir() if path.is_dir()} == {
        "warm-up", "control", "statistics", "cmix"
    }  # fmt: skip
    bare, _, bn, _ = ([cell["last"]["miou"] for cell in row["cells"]] for row in found["rows"])
    kept = [
        json.loads((tmp_path / "study" / "statistics" / f"seed-{seed}" / "results.json").read_text()) for seed in (0, 1)
    ]
    assert [one["source_only"]["miou"] for one in kept] == bare
    assert [one["adapted"]["miou"] for one in kept] == bn
    assert content()["rows"] == found["rows"]


def test_a_study_of_a_network_given_has_the_row_too(finished: Any, recipe: Recipe, cache: Path, tmp_path: Path) -> None:
    init = finished[0] / "checkpoints" / "source_only-last.safetensors"
    rows = (Row(name="bare", variant="source-only"), Row(name="bn", variant="statistics"))
    table, settings = Table(title="t", rows=rows, control=False), [*TINY, f"data.cache={cache}"]
    plan = plan_study(table, "demo", (0,), settings, tmp_path / "study", init=init)
    found = conduct(plan, tmp_path / "study", "t", device="cpu", display=Display(Console(file=io.StringIO())))
    whole, _ = run(recipe, tmp_path / "whole")
    assert [row["cells"][0]["last"]["miou"] for row in found["rows"]] == [one["miou"] for one in scores(whole)]
