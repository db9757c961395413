"""On which BatchNorm statistics an iteration's passes run, and which passes move the running ones."""

from __future__ import annotations

import copy

import pytest
import torch
from steps import AS_IT_IS, Witness, batches, begin, tiny
from torch import Tensor

from fastuda.method.segmentation import segmentation_loss
from fastuda.method.step import adaptation_step, warmup_step

STEM_MEAN = "backbone.bn1.running_mean"


def statistics_after(name: str, *settings: str) -> Tensor:
    recipe = tiny(name, *settings)
    state = begin(recipe)
    adaptation_step(state, *batches(recipe), recipe, AS_IT_IS)
    return state.student.state_dict()[STEM_MEAN]


def test_running_statistics_of_views_do_not_follow_the_mixed_crops() -> None:
    recipe = tiny("gta2cs", 'method.running_statistics="views"')
    state = begin(recipe)
    source, target = batches(recipe)
    adaptation_step(state, source, target, recipe, AS_IT_IS)

    expected = begin(recipe).student.train()
    assert source.view is not None
    assert target.view is not None
    with torch.no_grad():
        AS_IT_IS.raw(expected, source.view)
        AS_IT_IS.raw(expected, target.view)
    torch.testing.assert_close(state.student.state_dict()[STEM_MEAN], expected.state_dict()[STEM_MEAN])
    assert {layer.momentum for layer in state.student.modules() if isinstance(layer, torch.nn.BatchNorm2d)} == {0.1}
    assert not torch.equal(statistics_after("gta2cs"), state.student.state_dict()[STEM_MEAN])


@pytest.mark.parametrize("teacher", ["student", "ema"])
def test_a_teacher_on_running_statistics_leaves_them_alone_and_the_student_in_train_mode(teacher: str) -> None:
    settings = ('method.teacher_batch_norm="running"', 'method.running_statistics="views"')
    recipe = tiny("gta2cs", f'method.teacher="{teacher}"', *settings)
    state = begin(recipe)
    source, target = batches(recipe)
    adaptation_step(state, source, target, recipe, AS_IT_IS)

    expected = begin(recipe).student.train()
    assert source.view is not None
    with torch.no_grad():
        AS_IT_IS.raw(expected, source.view)
    torch.testing.assert_close(state.student.state_dict()[STEM_MEAN], expected.state_dict()[STEM_MEAN])
    assert state.student.training


RUNNING = 'method.student_batch_norm="running"'
TEACHERS = [
    (f'method.teacher="{teacher}"', f'method.teacher_batch_norm="{statistics}"')
    for teacher in ("student", "ema")
    for statistics in ("batch", "running")
]


@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize("name", ["gta2cs", "gta2cs+control", "gta2cs-edge+released"])
def test_a_student_on_running_statistics_trains_and_leaves_them_alone(name: str, teacher: tuple[str, ...]) -> None:
    recipe = tiny(name, RUNNING, *teacher)
    state, (source, target) = begin(recipe, Witness), batches(recipe)
    state.evaluation_model()
    statistics = {key: value.clone() for key, value in state.student.named_buffers() if "running" in key}
    weights = {key: value.clone() for key, value in state.student.named_parameters()}
    adaptation_step(state, source, target, recipe, AS_IT_IS)

    assert isinstance(state.student, Witness)
    training = [on_batch for _, with_gradient, on_batch in state.student.seen if with_gradient]
    assert training
    assert not any(training)
    after = dict(state.student.named_buffers())
    assert statistics
    assert all(torch.equal(value, after[key]) for key, value in statistics.items())
    moved = [key for key, value in state.student.named_parameters() if not torch.equal(value, weights[key])]
    assert "backbone.layer1.0.bn1.weight" in moved
    assert state.student.training
    warmup_step(state, source, recipe, AS_IT_IS)
    assert state.student.seen[-1][2], "the warm-up trains on batch statistics"


def test_a_student_on_running_statistics_learns_from_what_an_evaluation_would_see() -> None:
    recipe = tiny("gta2cs+control", RUNNING)
    state, (source, target) = begin(recipe), batches(recipe)
    twin = copy.deepcopy(state.student).eval()
    assert source.view is not None
    assert source.view_label is not None
    expected = segmentation_loss(AS_IT_IS.raw(twin, source.view), source.view_label, 0.1)
    losses = adaptation_step(state, source, target, recipe, AS_IT_IS)
    torch.testing.assert_close(losses["source"], expected.detach())
