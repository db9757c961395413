"""Pseudo-labels looked at while training: what the teacher says at an evaluation, and that looking moves nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from whole_runs import run, run_killed, saved_state

import fastuda.training.stage as stage_module
from fastuda.data.datasets import prepare_all, with_demo_data
from fastuda.data.loading.evaluation_loader import EvaluationLoader
from fastuda.evaluation.pseudo_labels import look_at_pseudo_labels
from fastuda.method.state import TrainingState
from fastuda.metrics.pseudo_labels import PseudoLabelScores
from fastuda.model.build import build_network
from fastuda.model.passes import Passes
from fastuda.recipe import Recipe
from fastuda.training.log_row import read_row

CPU = torch.device("cpu")
LOOKS = "eval.pseudo_labels=true"
TEACHERS = [
    (f"method.teacher={teacher}", f"method.teacher_batch_norm={mode}")
    for teacher in ("student", "ema")
    for mode in ("batch", "running")
]


def silent(_: str) -> Any:
    return lambda done, total: None


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


def begun(recipe: Recipe, *, flat: bool = False) -> TrainingState:
    """A state whose average and statistics are none of the student's."""
    torch.manual_seed(0)
    state = TrainingState.begin(build_network(recipe).train(), recipe.train.optimizer, 6, 0.9, flat=flat)
    with torch.no_grad():
        for parameter in state.averaged.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for model, shift in ((state.student, 0.1), (state.averaged, 0.7)):
            for name, buffer in model.named_buffers():
                if name.endswith("running_mean"):
                    buffer.add_(shift)
    state.follow_weights()
    return state


@pytest.mark.parametrize("teacher", TEACHERS)
def test_what_is_held_against_the_labels_is_what_the_teacher_says(
    teacher: tuple[str, ...], tiny: Callable[..., Recipe]
) -> None:
    recipe = with_demo_data(tiny(LOOKS, *teacher), silent)
    images = prepare_all(recipe, silent).viewed_evaluation
    assert images is not None
    state = begun(recipe)

    # By another way: a network of its own in the mode that the recipe says, upsampled by torch.
    is_ema, in_batch = recipe.method.teacher == "ema", recipe.method.teacher_batch_norm == "batch"
    network = build_network(recipe)
    weights = dict((state.averaged if is_ema else state.student).named_parameters())
    network.load_state_dict({**state.student.state_dict(), **weights})
    network.eval()
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.train(in_batch)
    said = []
    for batch in EvaluationLoader(images, recipe.train.batch_size, 1, CPU):
        with torch.no_grad():
            outputs = Passes.of(recipe, CPU).raw(network, batch.images)
        for i, truth in enumerate(batch.labels):
            full = F.interpolate(outputs.logits[i : i + 1], truth.shape, mode="bilinear", align_corners=True)
            confidence, label = full.softmax(1)[0].max(0)
            said.append((truth, label, confidence))
    tau = float(torch.cat([confidence.flatten() for _, _, confidence in said]).median())
    names = recipe.classes.build().names
    every, confident = (np.zeros((len(names), len(names)), np.int64) for _ in range(2))
    for truth, label, confidence in said:
        for matrix, counted in ((every, truth < len(names)), (confident, (truth < len(names)) & (confidence > tau))):
            np.add.at(matrix, (truth[counted].numpy(), label[counted].numpy()), 1)
    assert 0 < confident.sum() < every.sum()
    expected = PseudoLabelScores.of(every, confident, names, tau).to_json()
    recipe = recipe.model_copy(update={"method": recipe.method.model_copy(update={"tau": tau})})
    found = look_at_pseudo_labels(state, images, recipe, Passes.of(recipe, CPU))
    # A pixel may lie on the other side of a threshold by rounding.
    assert found.to_json()["precision"] == pytest.approx(expected["precision"], abs=0.05)
    assert found.to_json()["share_kept"] == pytest.approx(expected["share_kept"], abs=0.05)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("teacher", TEACHERS)
def test_a_look_leaves_tensors_modes_and_generators_as_they_are(
    teacher: tuple[str, ...], flat: bool, tiny: Callable[..., Recipe]
) -> None:
    recipe = with_demo_data(tiny(LOOKS, *teacher), silent)
    images = prepare_all(recipe, silent).viewed_evaluation
    assert images is not None
    state = begun(recipe, flat=flat)
    state.averaged.eval()

    def standing() -> tuple[list[Tensor], list[bool], Tensor]:
        models = (state.student, state.worker, state.averaged)
        tensors = [*state.tensors(), *(one for model in models for one in model.state_dict().values())]
        modes = [module.training for model in models for module in model.modules()]
        return [tensor.clone() for tensor in tensors], modes, torch.get_rng_state()

    before = standing()
    look_at_pseudo_labels(state, images, recipe, Passes.of(recipe, CPU))
    after = standing()
    assert all(torch.equal(a, b) for a, b in zip(before[0], after[0], strict=True))
    assert before[1] == after[1]
    assert torch.equal(before[2], after[2])


@pytest.mark.parametrize(
    "settings", [*TEACHERS, ("eval.batch_norm=target", "method.teacher=ema", "method.teacher_batch_norm=running")]
)
def test_a_run_ends_in_the_same_bits_with_and_without(
    settings: tuple[str, ...], tiny: Callable[..., Recipe], tmp_path: Path
) -> None:
    short = ("warmup.iterations=1", "train.iterations=4", "train.evaluate_every=2", *settings)
    plain, _ = run(tiny(*short), tmp_path / "plain")
    looked, _ = run(tiny(*short, LOOKS), tmp_path / "looked")
    assert same(saved_state(tmp_path / "plain"), saved_state(tmp_path / "looked"))
    assert [one["iteration"] for one in looked["adapted"].pop("pseudo_labels")] == [2, 4]
    for stage in ("source_only", "adapted"):
        assert looked[stage] == plain[stage]
    assert looked["data"] == plain["data"]


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, dict[str, Any]]:
    from whole_runs import TINY

    path = tmp_path_factory.mktemp("looked") / "run"
    results, _ = run(Recipe.load("demo", [*TINY, f"data.cache={cache}", LOOKS]), path)
    return path, results


def test_log_and_results_have_every_evaluation_of_the_adaptation(looked: tuple[Path, dict[str, Any]]) -> None:
    path, results = looked
    assert "pseudo_labels" not in results["source_only"]
    history = results["adapted"]["pseudo_labels"]
    assert [one["iteration"] for one in history] == [3, 6]
    assert history[0]["tau"] == 0.95
    assert history[0]["classes"].keys() == results["adapted"]["iou"].keys()
    lines = (path / "log.jsonl").read_bytes().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [read_row(line) for line in lines] == rows
    seen = [{**row["pseudo_labels"], "iteration": row["iteration"]} for row in rows if "pseudo_labels" in row]
    assert seen == history
    assert all("pseudo_labels" not in row for row in rows if row["stage"] == "source_only")


def test_a_killed_run_has_the_history_of_one_that_was_not(
    looked: tuple[Path, dict[str, Any]], tiny: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_killed(tiny(LOOKS), tmp_path / "run", monkeypatch)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["adapted"]["pseudo_labels"] == looked[1]["adapted"]["pseudo_labels"]
    assert same(saved_state(tmp_path / "run"), saved_state(looked[0]))


def test_looking_may_begin_when_a_run_goes_on(
    tiny: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = stage_module.scored
    calls = iter(range(100))

    def killed(*arguments: Any, **options: Any) -> Any:
        if next(calls) == 3:  # the adaptation's last evaluation
            raise KeyboardInterrupt
        return scored(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(stage_module, "scored", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tiny(), tmp_path / "run")
    results, _ = run(tiny(LOOKS), tmp_path / "run", resume=True)
    assert [one["iteration"] for one in results["adapted"]["pseudo_labels"]] == [6]


def test_images_of_another_size_are_packed_for_it_and_are_no_split(tiny: Callable[..., Recipe]) -> None:
    recipe = with_demo_data(tiny(LOOKS, "eval.size=[96, 48]"), silent)
    data = prepare_all(recipe, silent)
    assert data.viewed_evaluation is not None
    assert (data.viewed_evaluation.size, data.evaluation.size) == ((64, 32), (96, 48))
    assert data.splits().keys() == {"source", "target", "evaluation"}
    assert prepare_all(with_demo_data(tiny(), silent), silent).viewed_evaluation is None
    alike = prepare_all(with_demo_data(tiny(LOOKS), silent), silent)
    assert alike.viewed_evaluation is not None
    assert alike.viewed_evaluation.folder == alike.evaluation.folder


@pytest.mark.parametrize(
    ("name", "makes"),
    [
        *(("demo", True), ("demo+cmix", True), ("demo+htcm", True), ("demo+edge", True)),
        *(("demo+control", False), ("demo+oracle", False), ("demo+source-only", False), ("demo+statistics", False)),
    ],
)
def test_which_rows_make_pseudo_labels(name: str, makes: bool) -> None:
    assert Recipe.load(name).makes_pseudo_labels == makes
