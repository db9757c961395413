"""Repeated updates of the backbone: the released optimiser's list, made here as its code makes it, and torch's SGD."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastuda.method.state import TrainingState
from fastuda.model.deeplab.network import DeepLabV2
from fastuda.recipe import Optimizer, Sgd
from fastuda.recipe.file import load_recipe
from fastuda.runs.checkpoint import read_state, restore_state, save_state
from fastuda.runs.checkpoint.notes import Notes

LISTED = Sgd(lr_backbone=0.3, lr_head=0.5, momentum=0.9, weight_decay=0.02, poly_power=0.9, backbone_updates="listed")
NUM_ITERATIONS = 8
PRINTED = 2.5e-4
FINITE = torch.tensor(1.0)


def released_list(model: DeepLabV2) -> Iterator[nn.Parameter]:
    """Every module of every layer adds what it holds, and what the modules below it hold: row 21."""
    backbone = model.backbone
    for layer in (backbone.conv1, backbone.bn1, backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4):
        for module in layer.modules():
            yield from (parameter for parameter in module.parameters() if parameter.requires_grad)


def begin(settings: Optimizer = LISTED, *, depth: Any = 18, flat: bool = False, seed: int = 0) -> TrainingState:
    torch.manual_seed(seed)
    model = DeepLabV2(3, depth=depth, width=0.0625).double()
    return TrainingState.begin(model, settings, NUM_ITERATIONS, 0.9, flat=flat)


def slopes(model: DeepLabV2, iteration: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(iteration)
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return {name: torch.randn(p.shape, generator=generator, dtype=p.dtype) for name, p in trained}


def step(state: TrainingState, iteration: int) -> None:
    state.begin_iteration()
    gradients = slopes(state.student, iteration)
    own = dict(state.student.named_parameters())
    state.backward(torch.stack([(own[name] * slope).sum() for name, slope in gradients.items()]).sum())
    state.end_iteration(FINITE, lambda function: function)


def torchs_sgd(model: DeepLabV2, num_steps: int, *, fused: bool = False) -> Callable[[str], Tensor]:
    """Train `model` by torch's own SGD on the released list; returns what gives a parameter's momentum by name.

    `fused` takes the same kernel as fastuda's, which on a CPU goes entry by entry; else a few operations an entry.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a later torch may refuse such a list
        optimizer = torch.optim.SGD(
            [
                {"params": list(released_list(model)), "lr": 0.0},
                {"params": model.parameter_groups()[-1].parameters, "lr": 0.0},
            ],
            momentum=0.9,
            weight_decay=0.02,
            **({"fused": True} if fused else {"foreach": False}),
        )
    named = dict(model.named_parameters())
    for k in range(num_steps):
        factor = (1 - k / NUM_ITERATIONS) ** 0.9
        for group, rate in zip(optimizer.param_groups, (0.3 / 3, 0.5), strict=True):
            group["lr"] = float(torch.tensor(rate * factor, dtype=torch.float32))
        for name, slope in slopes(model, k).items():
            named[name].grad = slope
        optimizer.step()
    return lambda name: optimizer.state[named[name]]["momentum_buffer"]


def test_the_list_of_resnet_101_names_what_row_21_counts() -> None:
    model = DeepLabV2(19)
    listed = Counter(released_list(model))
    assert Counter(listed.values()) == {1: 1, 3: 297, 4: 12}
    *layers, _ = model.parameter_groups()
    backbone = [parameter for layer in layers for parameter in layer.parameters]
    assert {id(p): model.times_listed()[p] for p in backbone} == {id(p): times for p, times in listed.items()}
    shortcuts = {id(p) for name, p in model.named_parameters() if "downsample" in name}
    assert {id(p) for p, times in listed.items() if times == 4} == shortcuts
    assert listed[model.backbone.conv1.weight] == 1


@pytest.mark.parametrize("depth", [18, 50])
def test_five_iterations_are_those_of_torchs_sgd_on_the_repeated_list_bit_by_bit(depth: int) -> None:
    state = begin(depth=depth)
    twin = copy.deepcopy(state.student)
    for k in range(5):
        step(state, k)
    momentum = torchs_sgd(twin, 5, fused=True)
    expected = dict(twin.named_parameters())
    compared = 0
    for name, parameter in state.student.named_parameters():
        assert torch.equal(parameter, expected[name]), name
        if parameter.requires_grad:
            assert torch.equal(state.optimizer.state[parameter]["momentum_buffer"], momentum(name)), name
            compared += 1
    assert compared == sum(len(group["params"]) for group in state.optimizer.param_groups) > 40


@pytest.mark.parametrize("flat", [False, True])
def test_whichever_way_torch_computes_it_only_the_last_bits_differ(flat: bool) -> None:
    state = begin(flat=flat)
    twin = copy.deepcopy(begin().student)
    for k in range(5):
        step(state, k)
    momentum = torchs_sgd(twin, 5)
    expected = dict(twin.named_parameters())
    for name, parameter in state.student.named_parameters():
        torch.testing.assert_close(parameter, expected[name], rtol=1e-12, atol=1e-13, msg=name)
        if parameter.requires_grad:
            ours = state.optimizer.state[parameter]["momentum_buffer"]
            torch.testing.assert_close(ours, momentum(name), rtol=1e-12, atol=1e-13, msg=name)


@pytest.mark.parametrize("flat", [False, True])
def test_a_stopped_stage_goes_on_in_the_same_bits(flat: bool, tmp_path: Path) -> None:
    whole, first, second = begin(flat=flat), begin(flat=flat), begin(flat=flat, seed=1)
    for k in range(4):
        step(whole, k)
    for k in range(2):
        step(first, k)
    save_state(tmp_path / "s", first, "adapted", Notes(warmup=True))
    restore_state(read_state(tmp_path / "s"), second, tmp_path / "s")
    for k in range(2, 4):
        step(second, k)
    assert [i for i, (a, b) in enumerate(zip(whole.tensors(), second.tensors(), strict=True)) if not a.equal(b)] == []


def moved(settings: Optimizer, num_iterations: int, name: str) -> float:
    """How far a weight goes under a gradient of 1."""
    state = begin(settings)
    parameter = dict(state.student.named_parameters())[name]
    before = parameter.detach().clone()
    for _ in range(num_iterations):
        state.begin_iteration()
        state.backward(parameter.sum())
        state.end_iteration(FINITE, lambda function: function)
    return float((before - parameter).detach().mean())


@pytest.mark.parametrize(
    ("name", "num_iterations", "times"),
    [
        # Without momentum in the first iteration: three updates, four in a shortcut.
        ("backbone.layer2.0.conv1.weight", 1, 3.0),
        ("backbone.layer2.0.downsample.0.weight", 1, 4.0),
        ("backbone.conv1.weight", 1, 1.0),
        # Velocities 1, 1, 1, then 1.9, 2.71, 3.439, then 4.0951, 4.68559, 5.217031, against 1 + 1.9 + 2.71.
        ("backbone.layer2.0.conv1.weight", 3, (3 + 8.049 + 13.997721) / 5.61),
    ],
)
def test_how_much_further_than_one_update_at_the_printed_rate(name: str, num_iterations: int, times: float) -> None:
    flat_schedule: dict[str, float] = {"weight_decay": 0.0, "poly_power": 0.0}
    listed = Sgd(lr_backbone=3 * PRINTED, backbone_updates="listed", **flat_schedule)  # type: ignore[arg-type]
    printed = Sgd(lr_backbone=PRINTED, **flat_schedule)  # type: ignore[arg-type]
    ratio = moved(listed, num_iterations, name) / moved(printed, num_iterations, name)
    assert ratio == pytest.approx(times, rel=1e-6)


def test_the_default_rate_is_the_published_runs_step_once_its_momentum_has_settled() -> None:
    name, long = "backbone.layer2.0.conv1.weight", 120
    plain: dict[str, Any] = {"weight_decay": 0.0, "poly_power": 0.0}
    listed, default = Sgd(backbone_updates="listed", **plain), Sgd(**plain)
    of_one = [moved(settings, long + 1, name) - moved(settings, long, name) for settings in (listed, default)]
    assert of_one[0] == pytest.approx(of_one[1], rel=1e-4)
    assert of_one[1] == pytest.approx(7.5e-4 / (1 - 0.9), rel=1e-4)


@pytest.mark.parametrize("name", ["gta2cs-released", "syn2cs-released", "gta2cs-edge+released"])
def test_released_recipes_repeat_the_printed_rate_in_both_stages(name: str) -> None:
    recipe = load_recipe(name)
    for settings in (recipe.warmup.optimizer, recipe.train.optimizer):
        assert settings.backbone_updates == "listed"
        state = begin(settings)
        state.set_learning_rates()
        *backbone, heads = (float(group["lr"]) for group in state.optimizer.param_groups)
        assert backbone == [pytest.approx(PRINTED, rel=1e-7)] * 3
        assert heads == pytest.approx(2.5e-3, rel=1e-7)


def test_with_a_scaler_gradients_are_unscaled_once_and_an_overflow_changes_nothing() -> None:
    plain, scaled = begin(), begin()
    scaled.scaler = torch.amp.GradScaler("cpu", enabled=True, init_scale=1024.0)
    scaled.scaler.scale(torch.zeros(()))
    for k in range(3):
        step(plain, k)
        step(scaled, k)
    for ours, theirs in zip(scaled.tensors(), plain.tensors(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    before = [p.detach().clone() for p in scaled.student.parameters()]
    scaled.begin_iteration()
    scaled.backward(torch.stack([p.sum() for p in scaled.student.parameters() if p.requires_grad]).sum() * torch.inf)
    scaled.step_optimizer()
    assert all(torch.equal(a, b) for a, b in zip(before, scaled.student.parameters(), strict=True))


def test_every_group_is_whole_again_after_a_step() -> None:
    state = begin()
    step(state, 0)
    assert [group["updates"] for group in state.optimizer.param_groups] == [1, 3, 4, 1]
    grouped = [id(p) for group in state.optimizer.param_groups for p in group["params"]]
    assert len(grouped) == len(set(grouped)) == sum(p.requires_grad for p in state.student.parameters())
