"""The flat update: the same weights, momenta and averages as torch's optimiser and average, and what lies where."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from steps import AS_IT_IS, batches, begin, differ, tensors, tiny
from torch import Tensor

from fastuda.method.state import TrainingState
from fastuda.method.step import adaptation_step, warmup_step
from fastuda.model.passes import Passes
from fastuda.recipe import Recipe
from fastuda.runs.checkpoint import read_state, restore_state, save_state
from fastuda.runs.checkpoint.notes import Notes

BF16 = replace(AS_IT_IS, amp=torch.bfloat16)
FP64 = replace(AS_IT_IS, normalisation=AS_IT_IS.normalisation._replace(dtype=torch.float64))
"""No pseudo-label turns on rounding."""


def plain_and_flat(
    recipe: Recipe,
    precision: torch.dtype | None = None,
    *,
    layout: torch.memory_format = torch.channels_last,
    dtype: torch.dtype = torch.float32,
) -> tuple[TrainingState, TrainingState]:
    """Two states that begin alike."""

    def made(*, flat: bool) -> TrainingState:
        student = begin(recipe).student.to(dtype, memory_format=layout)  # type: ignore[call-overload]
        decay = recipe.method.ema_decay
        return TrainingState.begin(student, recipe.train.optimizer, 10, decay, flat=flat, precision=precision)

    return made(flat=False), made(flat=True)


def by_name(state: TrainingState) -> dict[str, Tensor]:
    """Weights, averages and momenta."""
    named = {f"student.{name}": value for name, value in state.student.state_dict().items()}
    named |= {f"average.{name}": value for name, value in state.averaged.state_dict().items()}
    for name, parameter in state.student.named_parameters():
        if parameter in state.optimizer.state:
            named[f"momentum.{name}"] = state.optimizer.state[parameter]["momentum_buffer"]
    return named


def train(state: TrainingState, recipe: Recipe, passes: Passes, num_iterations: int = 4) -> list[dict[str, float]]:
    source, target = batches(recipe)
    warmup_step(state, source, recipe, passes)
    found = [adaptation_step(state, source, target, recipe, passes) for _ in range(num_iterations)]
    return [{name: float(loss) for name, loss in losses.items()} for losses in found]


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("gta2cs", ()),
        ("gta2cs-edge", ()),
        ("gta2cs", ("method.teacher='ema'", "train.optimizer.ramp_up=3")),
        ("gta2cs", ("method.teacher_batch_norm='running'", "method.running_statistics='views'")),
        ("gta2cs", ("method.student_batch_norm='running'",)),
        ("gta2cs", ("mix.pseudo_labels='confident'", "method.confident='class-balanced'")),
        ("gta2cs", ("train.optimizer.momentum=0",)),
        ("gta2cs", ("model.auxiliary=false",)),
        ("gta2cs", ("auxiliary.weight=0",)),
    ],
)
def test_a_flat_update_trains_as_the_plain_one(name: str, settings: tuple[str, ...], layout: Any) -> None:
    fast = ("train.optimizer.lr_backbone=1e-2", "train.optimizer.lr_head=1e-1", "train.optimizer.weight_decay=0.01")
    recipe = tiny(name, *fast, *settings)
    plain, flat = plain_and_flat(recipe, layout=layout, dtype=torch.float64)
    expected, found = train(plain, recipe, FP64), train(flat, recipe, FP64)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6)
    wanted = by_name(plain)
    for key, value in by_name(flat).items():
        if key not in wanted:  # without momentum torch keeps none
            assert recipe.train.optimizer.momentum == 0
            continue
        torch.testing.assert_close(value, wanted[key], rtol=1e-6, atol=1e-9, msg=key)
    assert int(flat.iteration) == int(plain.iteration) == 5
    for ours, theirs in zip(flat.optimizer.param_groups, plain.optimizer.param_groups, strict=True):
        torch.testing.assert_close(ours["lr"], theirs["lr"])


def test_one_update_is_that_of_torchs_sgd_and_average_to_the_last_bits() -> None:
    recipe = tiny("gta2cs", "train.optimizer.weight_decay=0.01")
    plain, flat = plain_and_flat(recipe, dtype=torch.float64)
    for step in range(5):
        for state in (plain, flat):
            state.begin_iteration()
            generator = torch.Generator().manual_seed(step)
            for num_pass in range(2):
                total = torch.zeros((), dtype=torch.float64)
                for parameter in state.student.parameters():
                    if parameter.requires_grad and (num_pass or parameter.ndim > 1):
                        slope = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                        total = total + (slope * parameter).sum()
                state.backward(total)
            state.end_iteration(torch.ones(()), lambda function: function)
    wanted = by_name(plain)
    for key, value in by_name(flat).items():
        torch.testing.assert_close(value, wanted[key], rtol=1e-12, atol=1e-13, msg=key)


def test_with_low_precision_copies_a_pass_and_its_gradients_are_those_of_autocast() -> None:
    recipe = tiny("gta2cs")
    plain, flat = plain_and_flat(recipe, torch.bfloat16)
    assert flat.worker is not flat.student
    kinds = {name: p.dtype for name, p in flat.worker.named_parameters()}
    low = {name for name, kind in kinds.items() if kind == torch.bfloat16}
    assert low == {n for n, p in flat.student.backbone.named_parameters("backbone") if p.ndim == 4}
    expected, found = train(plain, recipe, BF16, 1), train(flat, recipe, BF16, 1)
    assert found[0] == pytest.approx(expected[0], rel=2e-2, abs=1e-3)
    assert found[0]["source"] == pytest.approx(expected[0]["source"], rel=1e-3)
    moved = 0
    start, wanted = begin(recipe).student.state_dict(), by_name(plain)
    for key, value in by_name(flat).items():
        if key.startswith("student.") and value.ndim == 4:
            before = start[key.removeprefix("student.")]
            step, theirs = value - before, wanted[key] - before
            moved += 1
            torch.testing.assert_close(step, theirs, rtol=0, atol=0.02 * float(theirs.abs().max()) + 1e-9, msg=key)
    assert moved > 20


def test_copies_follow_the_weights() -> None:
    recipe = tiny("gta2cs")
    _, flat = plain_and_flat(recipe, torch.bfloat16)
    train(flat, recipe, BF16, 1)
    weights = dict(flat.student.named_parameters())

    def stale() -> list[str]:
        named = flat.worker.named_parameters()
        return [name for name, worker in named if not torch.equal(worker, weights[name].to(worker.dtype))]

    assert stale() == []
    flat.student.load_state_dict({name: value + 1 for name, value in flat.student.state_dict().items()})
    assert len(stale()) > 10
    flat.follow_weights()
    assert stale() == []


def test_all_but_the_backbones_convolutions_is_shared_with_the_worker() -> None:
    recipe = tiny("gta2cs")
    _, flat = plain_and_flat(recipe, torch.bfloat16)
    worker, student = dict(flat.worker.named_modules()), dict(flat.student.named_modules())
    assert worker["head"] is student["head"]
    assert worker["auxiliary_head"] is student["auxiliary_head"]
    assert worker["backbone.layer2.0.bn1"] is student["backbone.layer2.0.bn1"]
    assert worker["backbone.layer2.0.conv1"] is not student["backbone.layer2.0.conv1"]


@pytest.mark.parametrize("work", ["warm-up", "adaptation"])
def test_the_worker_of_a_network_in_eval_mode_is_trained_in_train_mode(work: str) -> None:
    recipe = tiny("gta2cs")
    student = begin(recipe).student.eval()
    state = TrainingState.begin(student, recipe.train.optimizer, 10, 0.9, flat=True, precision=torch.bfloat16)
    modes: list[bool] = []
    state.worker.backbone.layer1.register_forward_hook(lambda module, *_: modes.append(module.training))  # type: ignore[union-attr, arg-type]
    source, target = batches(recipe)
    if work == "warm-up":
        warmup_step(state, source, recipe, BF16)
    else:
        adaptation_step(state, source, target, recipe, BF16)
    assert modes[0]


def test_a_rehearsal_leaves_no_trace() -> None:
    recipe = tiny("gta2cs")
    _, flat = plain_and_flat(recipe, torch.bfloat16)
    train(flat, recipe, BF16, 1)
    before = tensors(flat)
    with flat.rehearsal():
        train(flat, recipe, BF16, 1)
        assert differ(tensors(flat), before)
    assert differ(tensors(flat), before) == []


def test_every_tensor_starts_at_an_aligned_place() -> None:
    _, flat = plain_and_flat(tiny("gta2cs"), torch.bfloat16)
    for model in (flat.student, flat.worker, flat.averaged):
        for name, parameter in model.named_parameters():
            if parameter.requires_grad or "bn1" not in name:
                assert parameter.data_ptr() % 16 == 0, name
                assert parameter.storage_offset() % 64 == 0, name


def test_a_parameter_that_no_loss_reaches_stays() -> None:
    recipe = tiny("gta2cs", "auxiliary.weight=0", "train.optimizer.weight_decay=0.5")
    _, flat = plain_and_flat(recipe)
    assert flat.student.auxiliary_head is not None
    before = [p.detach().clone() for p in flat.student.auxiliary_head.parameters()]
    train(flat, recipe, AS_IT_IS, 1)
    for ours, theirs in zip(flat.student.auxiliary_head.parameters(), before, strict=True):
        assert torch.equal(ours, theirs)


def test_a_loss_scaler_is_refused() -> None:
    recipe = tiny("gta2cs")
    with pytest.raises(AssertionError):
        TrainingState.begin(begin(recipe).student, recipe.train.optimizer, 10, 0.9, scaled=True, flat=True)


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_a_saved_state_goes_on_bit_for_bit(precision: torch.dtype | None, tmp_path: Path) -> None:
    recipe, passes = tiny("gta2cs"), AS_IT_IS if precision is None else BF16
    _, whole = plain_and_flat(recipe, precision)
    _, first = plain_and_flat(recipe, precision)
    plain, resumed = plain_and_flat(recipe, precision)
    train(whole, recipe, passes, 1)
    train(first, recipe, passes, 1)
    save_state(tmp_path / "state", first, "adapted", Notes(warmup=True))
    saved = read_state(tmp_path / "state")
    for state in (resumed, plain):
        restore_state(saved, state, tmp_path / "state")
    train(whole, recipe, passes, 1)
    train(resumed, recipe, passes, 1)
    assert differ(tensors(resumed), tensors(whole)) == []
    assert int(plain.iteration) == 2, "a state that is not flat takes it too"
    for name, value in by_name(plain).items():
        assert torch.equal(value, by_name(first)[name]), name


def test_a_second_stage_begins_from_a_flat_one() -> None:
    recipe = tiny("gta2cs")
    _, flat = plain_and_flat(recipe, torch.bfloat16)
    train(flat, recipe, BF16, 1)
    weights = {name: value.clone() for name, value in flat.student.state_dict().items()}
    second = TrainingState.begin(flat.student, recipe.train.optimizer, 10, 0.9, flat=True, precision=torch.bfloat16)
    assert all(torch.equal(value, weights[name]) for name, value in second.student.state_dict().items())
    train(second, recipe, BF16, 1)
    assert not torch.equal(second.student.backbone.conv1.weight, weights["backbone.conv1.weight"])
