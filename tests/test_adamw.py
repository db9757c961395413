"""AdamW, clipping, layer decay and the cosine: against torch's own, closed formulas, and through a kill."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from steps import begin
from torch import Tensor
from whole_runs import run, run_killed, saved_state

from fastuda.errors import FastudaError, UsageError
from fastuda.method.optimizer import parameters_of, state_of
from fastuda.method.state import TrainingState
from fastuda.recipe import AdamW, Optimizer, Recipe, Sgd
from fastuda.recipe.file import load_recipe
from fastuda.runs.checkpoint import read_state, restore_state, save_state
from fastuda.runs.checkpoint.notes import Notes

NUM_ITERATIONS = 8
SETTINGS = AdamW(lr_backbone=0.01, lr_head=0.05, weight_decay=0.1, ramp_up=0)


def started(settings: Optimizer, *, flat: bool = False, dtype: torch.dtype = torch.float64) -> TrainingState:
    student = begin(load_recipe("gta2cs", ["model.depth=18"])).student.to(dtype)
    return TrainingState.begin(student, settings, NUM_ITERATIONS, 0.9, flat=flat)


def slope(parameter: Tensor, k: int) -> Tensor:
    """A gradient that changes from iteration to iteration and from value to value."""
    places = torch.arange(parameter.numel(), dtype=parameter.dtype).reshape(parameter.shape)
    return torch.sin(places + k) + 0.1 * parameter.detach()


def step(state: TrainingState, k: int) -> None:
    state.begin_iteration()
    for parameter in state.worker.parameters():
        if parameter.requires_grad:
            parameter.grad = slope(parameter, k)
    if state.flat is not None:
        state.flat.collect()
    state.end_iteration(torch.zeros(()), lambda function: function)


@pytest.mark.parametrize("flat", [False, True])
def test_iterations_are_those_of_torchs_adamw(flat: bool) -> None:
    state = started(SETTINGS, flat=flat)
    twin = started(SETTINGS).student
    backbone = [p for group in twin.parameter_groups()[:-1] for p in group.parameters]
    groups = [{"params": backbone}, {"params": list(twin.parameter_groups()[-1].parameters)}]
    torchs = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1, foreach=False)
    for k in range(5):
        factor = (1 - k / NUM_ITERATIONS) ** 1.0
        for group, rate in zip(torchs.param_groups, (0.01, 0.05), strict=True):
            group["lr"] = float(torch.tensor(rate * factor, dtype=torch.float32))
        for parameter in twin.parameters():
            if parameter.requires_grad:
                parameter.grad = slope(parameter, k)
        torchs.step()
        step(state, k)
    expected = dict(twin.named_parameters())
    for name, parameter in state.student.named_parameters():
        torch.testing.assert_close(parameter, expected[name], rtol=1e-6, atol=1e-9, msg=name)
        if parameter.requires_grad:
            ours, theirs = state_of(state.optimizer, parameter), torchs.state[expected[name]]
            assert ours["step"].item() == theirs["step"].item() == 5
            for kind in ("exp_avg", "exp_avg_sq"):
                torch.testing.assert_close(ours[kind], theirs[kind], rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize("kind", [AdamW, Sgd])
@pytest.mark.parametrize("flat", [False, True])
def test_longer_gradients_are_shortened_to_the_norm(kind: type[Optimizer], flat: bool) -> None:
    still: dict[str, Any] = {"weight_decay": 0.0, "ramp_up": 0, "lr_backbone": 0.01, "lr_head": 0.01}
    clipped, scaled = started(kind(**still, clip_norm=3.0), flat=flat), started(kind(**still))
    parameters = [p for p in scaled.student.parameters() if p.requires_grad]
    for k in range(3):
        norm = torch.cat([slope(parameter, k).flatten() for parameter in parameters]).norm()
        assert norm > 3
        step(clipped, k)
        scaled.begin_iteration()
        for parameter in parameters:
            parameter.grad = slope(parameter, k) * (3 / (norm + 1e-6))
        scaled.end_iteration(torch.zeros(()), lambda function: function)
    for (name, one), other in zip(clipped.student.named_parameters(), scaled.student.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9, msg=name)


def test_short_gradients_are_left_alone() -> None:
    free, clipped = started(SETTINGS), started(SETTINGS.model_copy(update={"clip_norm": 1e6}))
    step(free, 0)
    step(clipped, 0)
    for one, other in zip(free.student.parameters(), clipped.student.parameters(), strict=True):
        assert torch.equal(one, other)


def test_layer_decay_makes_a_group_a_layer_and_shrinks_rates_towards_the_input() -> None:
    state = started(SETTINGS.model_copy(update={"layer_decay": 0.5}))
    rates = [group["base_rate"] for group in state.optimizer.param_groups]
    assert rates == pytest.approx([0.01 * 0.5**5, 0.01 * 0.5**4, 0.01 * 0.5**3, 0.01 * 0.5**2, 0.01 * 0.5, 0.05])
    names = {parameter: name for name, parameter in state.student.named_parameters()}
    layer2 = state.optimizer.param_groups[2]["params"]
    assert {names[parameter].split(".")[1] for parameter in layer2} == {"layer2"}
    assert len(parameters_of(state.optimizer)) == sum(p.requires_grad for p in state.student.parameters())


def test_the_cosine_falls_from_one_to_zero_and_the_ramp_rises_before_it() -> None:
    state = started(AdamW(lr_backbone=1.0, lr_head=2.0, schedule="cosine", ramp_up=2))
    found = []
    for k in range(NUM_ITERATIONS):
        state.set_learning_rates()
        found.append([float(group["lr"]) for group in state.optimizer.param_groups])
        state.iteration.fill_(k + 1)
    factors = [min(1, (k + 1) / 2) * (1 + math.cos(math.pi * k / NUM_ITERATIONS)) / 2 for k in range(NUM_ITERATIONS)]
    assert found == [pytest.approx([factor, 2 * factor]) for factor in factors]


@pytest.mark.parametrize("flat", [False, True])
def test_all_that_it_remembers_is_saved_and_comes_back(flat: bool, tmp_path: Path) -> None:
    state, fresh = (started(SETTINGS, flat=flat, dtype=torch.float32) for _ in range(2))
    for k in range(3):
        step(state, k)
    save_state(tmp_path / "s", state, "adapted", Notes(warmup=True))
    saved = read_state(tmp_path / "s")
    assert {key.split(".")[1] for key in saved.tensors if key.startswith("optimizer.")} == {
        "step",
        "exp_avg",
        "exp_avg_sq",
    }
    restore_state(saved, fresh)
    for k in (3, 4):
        step(state, k)
        step(fresh, k)
    ours, theirs = state.tensors(), fresh.tensors()
    assert [i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if not torch.equal(a, b)] == []


def test_a_checkpoint_goes_from_flat_updates_to_plain_ones(tmp_path: Path) -> None:
    flat, plain = (started(SETTINGS, flat=flat) for flat in (True, False))
    step(flat, 0)
    save_state(tmp_path / "s", flat, "adapted", Notes(warmup=True))
    restore_state(read_state(tmp_path / "s"), plain)
    step(flat, 1)
    step(plain, 1)
    for one, other in zip(flat.student.parameters(), plain.student.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


def test_a_rehearsal_leaves_no_trace() -> None:
    state = started(SETTINGS)
    step(state, 0)
    before = [tensor.clone() for tensor in state.tensors()]
    with state.rehearsal():
        step(state, 1)
    assert all(torch.equal(a, b) for a, b in zip(before, state.tensors(), strict=True))


@pytest.mark.parametrize("more", [(), ("runtime.flat_update=true",)], ids=["plain", "flat"])
def test_a_killed_run_with_adamw_goes_on_in_the_same_bits(
    more: tuple[str, ...], tmp_path: Path, tiny: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = [f"{stage}.optimizer.kind=adamw" for stage in ("warmup", "train")]
    recipe = tiny(*stages, "train.optimizer.clip_norm=1.0", "train.optimizer.schedule=cosine", *more)
    run(recipe, tmp_path / "whole")
    run_killed(recipe, tmp_path / "killed", monkeypatch)
    expected, found = saved_state(tmp_path / "whole"), saved_state(tmp_path / "killed")
    assert expected.keys() == found.keys()
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    assert any(key.startswith("optimizer.exp_avg_sq.") for key in expected)


def test_a_ramp_that_never_ends_is_said(
    tmp_path: Path, tiny: Callable[..., Recipe], caplog: pytest.LogCaptureFixture
) -> None:
    run(tiny("train.optimizer.kind=adamw", "train.optimizer.ramp_up=7"), tmp_path / "run")
    told = [record.getMessage() for record in caplog.records if "ramp_up" in record.getMessage()]
    assert len(told) == 1
    assert "adapted: the learning rate rises over 7 iterations (ramp_up), and there are 6" in told[0]


def test_a_checkpoint_of_sgd_is_refused(tmp_path: Path) -> None:
    sgd, adamw = started(Sgd()), started(SETTINGS)
    save_state(tmp_path / "s", sgd, "adapted", Notes(warmup=True))
    with pytest.raises(FastudaError, match=r"another optimiser: optimizer\.step\..* is missing"):
        restore_state(read_state(tmp_path / "s"), adamw)


def test_another_kind_brings_rates_of_its_own() -> None:
    # The demo sets rates for AdamW, which would be timid for SGD.
    optimizer = load_recipe("demo", ["train.optimizer.lr_head=1e-3", "train.optimizer.kind=sgd"]).train.optimizer
    assert isinstance(optimizer, Sgd)
    assert (optimizer.lr_backbone, optimizer.lr_head) == (7.5e-4, 1e-3)
    assert isinstance(load_recipe("demo").train.optimizer, AdamW)
    assert load_recipe("demo", ["train.optimizer.kind=adamw"]) == load_recipe("demo")


def test_fields_of_another_kind_and_unknown_kinds_are_named() -> None:
    with pytest.raises(UsageError, match=r"train\.optimizer\.betas: no such field"):
        load_recipe("gta2cs", ["train.optimizer.betas=[0.9, 0.99]"])
    with pytest.raises(UsageError, match=r"train\.optimizer\.momentum: no such field"):
        load_recipe("gta2cs", ["train.optimizer.kind=adamw", "train.optimizer.momentum=0.9"])
    with pytest.raises(UsageError, match=r"train\.optimizer: no such kind: 'adam'; did you mean adamw\?"):
        load_recipe("gta2cs", ["train.optimizer.kind=adam"])
