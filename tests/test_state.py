"""Training state: schedule, optimiser and average against their closed formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fastuda.method.state import TrainingState
from fastuda.model.deeplab.network import DeepLabV2
from fastuda.recipe import Optimizer, Sgd

FINITE = torch.tensor(1.0)


def begin(
    settings: Optimizer | None = None, *, num_iterations: int = 10, ema_decay: float = 0.9, seed: int = 0
) -> TrainingState:
    torch.manual_seed(seed)
    model = DeepLabV2(3, depth=18, width=0.0625)
    return TrainingState.begin(model, settings or Sgd(), num_iterations, ema_decay)


def rates(state: TrainingState) -> list[float]:
    return [float(group["lr"]) for group in state.optimizer.param_groups]


def head_weight(model: DeepLabV2) -> Tensor:
    return next(model.head.parameters())


def test_learning_rates_follow_the_poly_formula_to_zero() -> None:
    state = begin(Sgd(lr_backbone=0.5, lr_head=2.0, poly_power=0.9), num_iterations=4)
    seen = []
    for _ in range(5):
        state.set_learning_rates()
        seen.append(rates(state))
        state.finish_iteration(FINITE)
    factors = [(1 - k / 4) ** 0.9 for k in range(4)] + [0.0]
    assert seen == [pytest.approx([0.5 * factor, 2.0 * factor]) for factor in factors]


def test_a_ramp_up_multiplies_the_schedule() -> None:
    state = begin(Sgd(lr_backbone=1.0, lr_head=10.0, poly_power=0.5, ramp_up=2), num_iterations=4)
    seen = []
    for _ in range(4):
        state.set_learning_rates()
        seen.append(rates(state)[1])
        state.finish_iteration(FINITE)
    assert seen == pytest.approx([5.0, 10 * 0.75**0.5, 10 * 0.5**0.5, 10 * 0.25**0.5])


def test_heads_and_backbone_learn_at_their_own_rates_and_the_stems_norm_not_at_all() -> None:
    state = begin(Sgd(lr_backbone=0.25, lr_head=1.0, weight_decay=0.0, momentum=0.0))
    before = {name: value.detach().clone() for name, value in state.student.named_parameters()}
    for parameter in state.student.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    state.set_learning_rates()
    state.optimizer.step()
    for name, value in state.student.named_parameters():
        expected = 1.0 if "head" in name else 0.0 if name.startswith("backbone.bn1") else 0.25
        torch.testing.assert_close(before[name] - value, torch.full_like(value, expected), msg=name)


def test_three_steps_of_sgd_equal_momentum_and_weight_decay_written_out() -> None:
    settings = Sgd(lr_backbone=0.1, lr_head=0.3, momentum=0.9, weight_decay=0.01, poly_power=0.9)
    state = begin(settings, num_iterations=5)
    watched = {0.1: state.student.backbone.layer1[0].conv1.weight, 0.3: head_weight(state.student)}
    generator = torch.Generator().manual_seed(0)
    expected = {rate: parameter.detach().double() for rate, parameter in watched.items()}
    velocity = {rate: torch.zeros_like(value) for rate, value in expected.items()}
    for k in range(3):
        state.set_learning_rates()
        for rate, parameter in watched.items():
            gradient = torch.randn(parameter.shape, generator=generator)
            parameter.grad = gradient
            velocity[rate] = 0.9 * velocity[rate] + gradient.double() + 0.01 * expected[rate]
            expected[rate] = expected[rate] - rate * (1 - k / 5) ** 0.9 * velocity[rate]
        state.optimizer.step()
        state.finish_iteration(FINITE)
    for rate, parameter in watched.items():
        torch.testing.assert_close(parameter.detach().double(), expected[rate], rtol=1e-5, atol=1e-6)


def test_every_trained_parameter_is_in_one_group() -> None:
    state = begin()
    backbone, heads = ([id(p) for p in group["params"]] for group in state.optimizer.param_groups)
    trained = {id(p) for p in state.student.parameters() if p.requires_grad}
    assert len(backbone) + len(heads) == len(trained)
    assert {*backbone, *heads} == trained


def test_the_average_starts_as_the_student_and_is_a_copy() -> None:
    state = begin()
    for averaged, current in zip(state.averaged.parameters(), state.student.parameters(), strict=True):
        assert torch.equal(averaged, current)
        assert averaged.data_ptr() != current.data_ptr()
        assert not averaged.requires_grad


def test_the_average_after_k_steps_equals_the_closed_formula() -> None:
    decay, num_steps = 0.9, 5
    state = begin(ema_decay=decay)
    weight = head_weight(state.student)
    start = weight.detach().double().clone()
    history = []
    for k in range(num_steps):
        with torch.no_grad():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(k)))
        history.append(weight.detach().double().clone())
        state.finish_iteration(FINITE)
    expected = decay**num_steps * start
    for k, value in enumerate(history, start=1):
        expected = expected + (1 - decay) * decay ** (num_steps - k) * value
    torch.testing.assert_close(head_weight(state.averaged).double(), expected, rtol=1e-5, atol=1e-6)


def test_buffers_follow_only_at_evaluation() -> None:
    state = begin()
    student, averaged = state.student.backbone.bn1, state.averaged.backbone.bn1
    assert student.running_mean is not None
    assert averaged.running_mean is not None
    student.running_mean.fill_(5.0)
    state.finish_iteration(FINITE)
    assert not averaged.running_mean.any()
    model = state.evaluation_model()
    assert model is state.averaged
    assert not model.training
    assert torch.equal(averaged.running_mean, student.running_mean)
    assert averaged.running_mean.data_ptr() != student.running_mean.data_ptr()


def test_evaluation_takes_the_averaged_parameters_and_leaves_the_student_in_training() -> None:
    state = begin()
    start = head_weight(state.student).detach().clone()
    with torch.no_grad():
        head_weight(state.student).add_(1.0)
    assert torch.equal(head_weight(state.evaluation_model()), start)
    assert state.student.training


def test_the_first_loss_that_is_not_finite_is_remembered() -> None:
    state = begin()
    seen = []
    for loss in (1.0, 2.0, math.nan, 1.0, math.inf):
        state.finish_iteration(torch.tensor(loss))
        seen.append(int(state.first_nonfinite))
    assert seen == [-1, -1, 2, 2, 2]
    assert int(state.iteration) == 5


def test_an_infinite_loss_is_not_finite_either() -> None:
    state = begin()
    state.finish_iteration(torch.tensor(-math.inf))
    assert int(state.first_nonfinite) == 0
