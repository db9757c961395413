"""Trained models: of runs and of files, with the recipe they carry or one that fits."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from steps import small_network

from fastuda.data.reading.listing import LeftOut
from fastuda.errors import FastudaError
from fastuda.evaluation.load import load
from fastuda.evaluation.model import Model
from fastuda.evaluation.result import EvaluationResult, write_result
from fastuda.model.digest import sealed
from fastuda.recipe import Recipe
from fastuda.runs.checkpoint import save_model
from fastuda.runs.folder import RunFolder


def test_a_saved_model_comes_back_with_its_weights_and_recipe(
    weights: Path, trained: Model, tiny_recipe: Callable[..., Recipe]
) -> None:
    recipe = tiny_recipe()
    assert trained.recipe == recipe
    assert trained.file == weights
    assert not trained.network.training
    expected = small_network(recipe).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in trained.network.state_dict().items())


@pytest.fixture
def run_folder(tmp_path: Path, tiny_recipe: Callable[..., Recipe]) -> Path:
    recipe = tiny_recipe("seed=5")
    folder = RunFolder(tmp_path / "run")
    folder.begin(recipe, "demo")
    for number, (stage, which) in enumerate([("source_only", "last"), ("adapted", "last"), ("adapted", "best")]):
        model = small_network(recipe)
        torch.nn.init.constant_(model.head.branches[0].bias, number)  # type: ignore[arg-type]
        save_model(folder.model(stage, which), model, recipe, {})
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("choice", "number"),
    [({}, 1), ({"which": "best"}, 2), ({"stage": "source_only"}, 0), ({"stage": "adapted", "which": "last"}, 1)],
)
def test_a_runs_folder_stands_for_the_stage_and_checkpoint_asked_for(
    choice: dict[str, str], number: int, run_folder: Path
) -> None:
    found = load(run_folder, device="cpu", **choice)
    assert found.recipe.seed == 5
    assert (found.network.head.branches[0].bias == number).all()


def test_a_model_that_the_run_lacks_is_named_with_those_it_has(run_folder: Path) -> None:
    with pytest.raises(FastudaError) as caught:
        load(run_folder, stage="source_only", which="best", device="cpu")
    assert "run: no source_only-best.safetensors in this run" in str(caught.value)
    assert "there are adapted-best.safetensors, adapted-last.safetensors, source_only-last" in str(caught.value)


def test_a_run_without_any_model_says_so(tmp_path: Path, tiny_recipe: Callable[..., Recipe]) -> None:
    RunFolder(tmp_path / "run").begin(tiny_recipe(), "demo")
    with pytest.raises(FastudaError, match="it holds no evaluated model yet"):
        load(tmp_path / "run", device="cpu")


def test_scores_of_a_model_whose_path_is_no_utf_8_are_written(trained: Model, tmp_path: Path) -> None:
    result = EvaluationResult({}, "ab", LeftOut())
    write_result(tmp_path / "scores.json", result, replace(trained, file=Path("runs/\udcfc/net.safetensors")))
    assert json.loads((tmp_path / "scores.json").read_text("utf-8"))["model"] == "runs/\udcfc/net.safetensors"


@pytest.mark.parametrize(("amp", "name"), [(None, "float32"), (torch.bfloat16, "bfloat16")])
def test_scores_say_in_which_precision_they_were_computed(
    amp: torch.dtype | None, name: str, trained: Model, tmp_path: Path
) -> None:
    model = replace(trained, passes=replace(trained.passes, amp=amp))
    write_result(tmp_path / "scores.json", EvaluationResult({}, "ab", LeftOut()), model)
    assert json.loads((tmp_path / "scores.json").read_text("utf-8"))["precision"] == name


def test_a_locked_folder_of_models_is_named_and_not_taken_for_an_empty_one(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", refused)
    with pytest.raises(FastudaError, match=r"run/checkpoints: cannot be looked into \(Permission denied\)$"):
        load(run_folder, device="cpu")


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FastudaError, match="none: no such run folder or weights file"):
        load(tmp_path / "none", device="cpu")


def test_a_recipe_of_another_class_count_is_refused_with_both_counts(weights: Path) -> None:
    with pytest.raises(
        FastudaError,
        match=r"the model has 19 classes, the recipe 16; choose another recipe \(--recipe, in Python recipe=\)",
    ):
        load(weights, recipe="syn2cs", device="cpu")


def test_a_recipe_named_by_hand_takes_the_place_of_the_files_own(weights: Path) -> None:
    found = load(weights, recipe="gta2cs-edge", device="cpu")
    assert found.recipe.edge.enabled


def strangers_weights(path: Path, num_classes: int, tiny_recipe: Callable[..., Recipe]) -> Path:
    """A model without its recipe."""
    names = [f"class {i}" for i in range(num_classes)]
    recipe = tiny_recipe(f"classes.names={names}", "model.aspp=[6, 12]", 'model.input="bgr-caffe"')
    save_model(path, small_network(recipe), recipe, {})
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = {key: value for key, value in file.metadata().items() if key != "recipe"}
    save_file(tensors, path, sealed(tensors, metadata))
    return path


@pytest.mark.parametrize(("num_classes", "preset"), [(19, "gta2cs-released"), (16, "syn2cs-released")])
def test_weights_without_a_recipe_get_the_preset_of_their_class_count(
    num_classes: int, preset: str, tmp_path: Path, tiny_recipe: Callable[..., Recipe]
) -> None:
    found = load(strangers_weights(tmp_path / "w.safetensors", num_classes, tiny_recipe), device="cpu")
    assert found.recipe.model_copy(update={"model": Recipe.load(preset).model}) == Recipe.load(preset)
    # Input convention is the file's, whatever the preset says.
    assert found.recipe.model.input == "bgr-caffe"
    assert found.passes.normalisation.bgr


def test_weights_of_an_unknown_class_count_ask_for_a_recipe(tmp_path: Path, tiny_recipe: Callable[..., Recipe]) -> None:
    path = strangers_weights(tmp_path / "w.safetensors", 7, tiny_recipe)
    with pytest.raises(FastudaError, match=r"these weights know 7 classes and do not say which.*--recipe"):
        load(path, device="cpu")
