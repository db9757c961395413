"""Loader and loop measured on real pipelines, and two results compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import NETWORK, VIEWS
from typer.testing import CliRunner

from fastuda.errors import FastudaError
from fastuda.recipe import Recipe
from fastuda.recipe.file import load_recipe
from fastuda_bench import made_data
from fastuda_bench.compare import differences, fastest_ms, read_rows
from fastuda_bench.evaluation import evaluation_row
from fastuda_bench.loader import loader_rows
from fastuda_bench.made_data import bench_batches, bench_data, made_evaluation
from fastuda_bench.results import Row, write_rows
from fastuda_bench.training import training_row
from fastuda_cli.main import app

CPU = torch.device("cpu")
TINY = [*NETWORK, *VIEWS, "runtime.loader_threads=1"]


def silent(title: str) -> Any:
    return lambda done, total: None


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Any, str]:
    recipe = load_recipe("gta2cs", TINY)
    return recipe, *bench_data(recipe, tmp_path_factory.mktemp("made"), silent)


def test_a_recipe_without_folders_gets_made_pairs_at_its_sizes(made: tuple[Recipe, Any, str]) -> None:
    recipe, data, what = made
    assert what == "12 made pairs"
    assert (len(data.source), data.source.size) == (12, recipe.views.source_size)
    assert data.target.records[0].label is None


def test_loader_rows_say_what_is_fed_and_whether_it_is_enough(made: tuple[Recipe, Any, str]) -> None:
    recipe, data, what = made
    rows = loader_rows(recipe, "tiny", data, what, CPU, threads=(1, 2), repeats=2, iterations=5, step_ms=100.0)
    assert [row["threads"] for row in rows] == [1, 2]
    for row in rows:
        rate = row["iterations_per_second"]["median"]
        assert row["images_per_second"]["median"] == pytest.approx(4 * rate, rel=1e-3)
        assert row["times_the_need"] == pytest.approx(rate / 10, abs=0.01)
        assert row["cpu_ms_an_iteration"]["median"] > 0
        assert 0 < row["cores_used"] < 64
        assert {"data", "pack", "gpu", "versions", "commit", "date"} <= row.keys()


def test_a_training_row_projects_its_pace_and_counts_the_waiting(made: tuple[Recipe, Any, str]) -> None:
    recipe, data, what = made
    row = training_row(recipe, "tiny", data, what, CPU, repeats=2, iterations=2, price=2.5)
    assert row["run_iterations"] == recipe.train.iterations > 0
    assert row["hours"] == pytest.approx(row["ms"]["median"] * recipe.train.iterations / 3.6e6, abs=1e-4)
    assert (row["cost"], row["price_an_hour"]) == (None, 2.5), "a CPU has no GPU-hours"
    assert 0 <= row["percent_waiting"]["median"] <= 100
    assert (row["way"], row["paper_hours"], row["ms"]["repeats"]) == ("eager", None, 2), "not the paper's work"


def test_a_few_made_images_are_evaluated_as_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made_data, "NUM_PAIRS", 1)
    monkeypatch.setattr(made_data, "CITYSCAPES_SIZE", (256, 128))
    recipe = load_recipe("gta2cs", [*TINY, "eval.size=[64, 32]"])
    packed = made_evaluation(recipe, tmp_path, 3)
    assert (len(packed), len(set(packed.names)), packed.label_array(2).shape) == (3, 1, (128, 256))
    row = evaluation_row(recipe, "tiny", packed, CPU, repeats=2)
    assert (row["images"], row["seconds"]["repeats"]) == (3, 2)
    assert row["images_per_second"]["median"] == pytest.approx(3 / row["seconds"]["median"], rel=0.2)
    assert 0 < row["percent_waiting"]["median"] <= 100


def test_prepared_batches_are_the_loaders_first(made: tuple[Recipe, Any, str], tmp_path: Path) -> None:
    recipe, _, _ = made
    source, target = bench_batches(recipe, CPU, tmp_path, silent, prepared=True)
    noise, _ = bench_batches(recipe, CPU, tmp_path, silent, prepared=False)
    assert source.names != target.names or source.view is not target.view
    assert {name: getattr(one, "shape", None) for name, one in source._asdict().items() if name != "names"} == {
        name: getattr(one, "shape", None) for name, one in noise._asdict().items() if name != "names"
    }


@pytest.mark.parametrize("question", ["loader", "train"])
def test_the_commands_write_their_rows(question: str, tmp_path: Path) -> None:
    settings = [part for setting in TINY for part in ("--set", setting)]
    out, step = tmp_path / "out.json", tmp_path / "step.json"
    write_rows(step, [row("step", "eager-fp32", 50.0), row("step", "fused", 20.0)])
    words = ["bench", question, "gta2cs", "--device", "cpu", "--repeats", "1", "--iterations", "2", "--json", str(out)]
    more = ["--threads", "1,2", "--step", str(step)] if question == "loader" else ["--price", "3"]
    result = CliRunner().invoke(app, [*words, *more, *settings])
    assert result.exit_code == 0, result.output
    rows = json.loads(out.read_text())
    assert {one["question"] for one in rows} == {question}
    if question == "loader":
        assert {one["step_ms"] for one in rows} == {20.0}


@pytest.mark.parametrize("threads", ["1,x", "0"])
def test_threads_that_are_none_are_refused(threads: str) -> None:
    result = CliRunner().invoke(app, ["bench", "loader", "gta2cs", "--device", "cpu", "--threads", threads])
    assert result.exit_code == 2
    assert "--threads" in result.output


def row(question: str, rung: str, median: float, spread: float = 1.0, recipe: str = "gta2cs") -> Row:
    ms = {"repeats": 3, "median": median, "spread": spread}
    return {"question": question, "recipe": recipe, "batch_size": 2, "rung": rung, "ms": ms, "gpu": None, "commit": "a"}


def test_differences_pair_rows_of_the_same_thing_and_weigh_the_spread() -> None:
    before = [row("step", "graph", 50.0), row("step", "compile", 80.0), row("step", "fused", 70.0)]
    after = [row("step", "graph", 40.0), row("step", "compile", 80.9), row("step", "grouped", 75.0)]
    found = {one.what: one for one in differences(before, after)}
    assert found.keys() == {"gta2cs · graph", "gta2cs · compile"}
    graph = found["gta2cs · graph"]
    assert (graph.metric, graph.before, graph.after, graph.verdict) == ("ms", 50.0, 40.0, "beyond spread")
    assert graph.percent == pytest.approx(-20)
    assert found["gta2cs · compile"].verdict == "within spread"
    once = {**row("step", "graph", 90.0), "ms": {"repeats": 1, "median": 90.0, "spread": 0.0}}
    assert [one.verdict for one in differences(before, [once])] == ["one repeat"]
    assert differences(before, [{**row("step", "graph", 90.0), "settings": ["model.width=0.25"]}]) == []


def test_rows_that_failed_or_disagree_are_neither_fastest_nor_a_gain(tmp_path: Path) -> None:
    before = [row("step", "graph", 50.0), row("step", "fused", 70.0)]
    after = [{**row("step", "graph", 20.0), "disagreement": "the loss"}, row("step", "fused", 60.0)]
    after.append({"question": "step", "recipe": "gta2cs", "batch_size": 2, "rung": "compile", "error": "full"})
    assert [one.what for one in differences(before, after)] == ["gta2cs · fused"]
    write_rows(tmp_path / "step.json", after)
    assert fastest_ms(tmp_path / "step.json", "gta2cs", 2) == 60.0


def test_the_compare_command_says_what_changed_and_on_what(tmp_path: Path) -> None:
    paths = tmp_path / "a.json", tmp_path / "b.json"
    write_rows(paths[0], [row("step", "graph", 50.0), row("step", "fused", 60.0)])
    write_rows(paths[1], [{**row("step", "graph", 40.0), "commit": "b"}])
    result = CliRunner().invoke(app, ["bench", "compare", *map(str, paths)])
    assert result.exit_code == 0, result.output
    for part in ("commit: a → b", "gta2cs · graph", "-20.0 %", "1 rows stand in one file alone"):
        assert part in result.output


@pytest.mark.parametrize(
    ("content", "message"),
    [("[", "not JSON"), ("{}", "holds no rows"), ("[]", "holds no rows"), (None, "cannot be read")],
)
def test_files_that_are_no_results_are_named(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(FastudaError, match=f"results.json.*{message}"):
        read_rows(path)


def test_results_with_nothing_in_common_are_refused(tmp_path: Path) -> None:
    paths = tmp_path / "a.json", tmp_path / "b.json"
    write_rows(paths[0], [row("step", "graph", 50.0)])
    write_rows(paths[1], [row("step", "graph", 50.0, recipe="demo")])
    result = CliRunner().invoke(app, ["bench", "compare", *map(str, paths)])
    assert result.exit_code == 1
    assert "no measured row in common" in result.output
    with pytest.raises(FastudaError, match="no `bench step` of syn2cs at batch 2"):
        fastest_ms(paths[0], "syn2cs", 2)
