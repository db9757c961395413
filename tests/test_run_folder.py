"""A run's folder is made once, reopened only for the recipe it was made for, and found again by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fastuda.errors import FastudaError, UsageError
from fastuda.recipe import Recipe
from fastuda.recipe_file import load_recipe
from fastuda.run_folder import RunFolder, latest_run


def test_a_new_folder_holds_the_resolved_recipe(tmp_path: Path, tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe("seed=9")
    folder = RunFolder.create(tmp_path / "runs" / "new", recipe)
    assert load_recipe(str(folder.recipe)) == recipe
    assert folder.checkpoints.is_dir()
    assert folder.pictures.is_dir()


def test_an_empty_folder_may_be_used(tmp_path: Path, tiny_recipe: Callable[..., Recipe]) -> None:
    assert RunFolder.create(tmp_path, tiny_recipe()).recipe.exists()


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_there_already_is_refused_and_left_alone(
    kind: str, tmp_path: Path, tiny_recipe: Callable[..., Recipe]
) -> None:
    path = tmp_path / "run"
    if kind == "folder":
        path.mkdir()
        (path / "mine.txt").write_text("mine")
    else:
        path.write_text("mine")
    with pytest.raises(FastudaError, match=r"run: exists already; continue it with --resume, or choose another --run"):
        RunFolder.create(path, tiny_recipe())
    assert [p.read_text() for p in (path.iterdir() if kind == "folder" else [path])] == ["mine"]


@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("runtime.amp=none", "runtime.loader_threads=2", "runtime.deterministic=true"),
        ("data.cache=/other disk", "data.pack=raw"),
        ("description=another",),
    ],
)
def test_a_run_is_reopened_on_another_machine_or_disk(
    changes: tuple[str, ...], tmp_path: Path, tiny_recipe: Callable[..., Recipe]
) -> None:
    RunFolder.create(tmp_path / "run", tiny_recipe())
    asked = tiny_recipe(*changes)
    folder, recipe = RunFolder.reopen(tmp_path / "run", asked)
    assert folder.path == tmp_path / "run"
    assert (recipe.runtime, recipe.data) == (asked.runtime, asked.data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("method.tau=0.5", "method.tau: the run has 0.95, you ask for 0.5"),
        ("htcm.from=mixed", "htcm.from: the run has target, you ask for mixed"),
        ("train.optimizer.lr_head=1e-3", "train.optimizer.lr_head: the run has 0.0025, you ask for 0.001"),
        ("source.root=/elsewhere", "source.root: the run has None, you ask for /elsewhere"),
        ("eval.subsets.two=[road]", "eval.subsets.two"),
        ("views.crop_size=[32, 32]", "views.crop_size: the run has [512, 512], you ask for [32, 32]"),
        ("seed=1", "seed: the run has 0, you ask for 1"),
    ],
)
def test_another_recipe_is_refused_naming_the_field(
    change: str, message: str, tmp_path: Path, tiny_recipe: Callable[..., Recipe]
) -> None:
    RunFolder.create(tmp_path / "run", tiny_recipe())
    change = change.replace("[road]", '["road"]')
    with pytest.raises(UsageError) as caught:
        RunFolder.reopen(tmp_path / "run", tiny_recipe(change))
    assert "run: --resume with another recipe than the run's own" in str(caught.value)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


def test_more_iterations_than_the_run_has_are_refused_with_the_way_on(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe]
) -> None:
    folder = RunFolder.create(tmp_path / "run", tiny_recipe("train.iterations=5"))
    folder.model("adapted", "last").touch()
    with pytest.raises(UsageError, match=r"train\.iterations: the run has 5, you ask for 9\n.*cannot grow") as caught:
        RunFolder.reopen(tmp_path / "run", tiny_recipe("train.iterations=9"))
    assert f"--init {folder.model('adapted', 'last')}" in str(caught.value)


def test_a_folder_that_is_no_run_is_not_reopened(tmp_path: Path, tiny_recipe: Callable[..., Recipe]) -> None:
    with pytest.raises(FastudaError, match=r"no run to resume here \(no recipe\.toml\); start it without --resume"):
        RunFolder.reopen(tmp_path, tiny_recipe())


def test_log_rows_are_added_and_results_replaced(tmp_path: Path, tiny_recipe: Callable[..., Recipe]) -> None:
    folder = RunFolder.create(tmp_path / "run", tiny_recipe())
    for i in range(2):
        folder.append_log({"iteration": i})
        folder.write_results({"title": "GTA5 → Cityscapes", "number": i})
    assert [json.loads(line) for line in folder.log.read_text().splitlines()] == [{"iteration": 0}, {"iteration": 1}]
    assert "→" in folder.results.read_text("utf-8")
    assert json.loads(folder.results.read_text("utf-8"))["number"] == 1
    assert not list(folder.path.rglob("*.part"))


def test_the_latest_run_is_the_one_of_that_recipe_with_the_newest_date(tmp_path: Path) -> None:
    names = ["gta2cs-20260101-120000", "gta2cs-20260102-090000", "gta2cs-edge-20260301-000000", "demo-20270101-000000"]
    for name in reversed(names):
        (tmp_path / name).mkdir()
    assert latest_run(tmp_path, "gta2cs").name == names[1]
    assert latest_run(tmp_path, "gta2cs-edge").name == names[2]


def test_no_run_of_that_recipe_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "gta2cs-edge-20260301-000000").mkdir()
    with pytest.raises(FastudaError, match="no run of gta2cs to resume; name its folder with --run"):
        latest_run(tmp_path, "gta2cs")
