"""The average of the student's weights, constant and rising, against the recursion by hand."""

from __future__ import annotations

import pytest
import torch
from steps import AS_IT_IS, SMALL, batches, begin
from torch import Tensor

from fastuda.method.average import Average
from fastuda.method.state import TrainingState
from fastuda.method.step import adaptation_step
from fastuda.recipe.file import load_recipe

DECAY = 0.8
NUM_ITERATIONS = 8


def count(value: int) -> Tensor:
    return torch.tensor(value)


def by_hand(weights: list[Tensor], start: Tensor) -> Tensor:
    """α = min(1 − 1 / (t + 1), decay) with t = 1 after the first iteration (Mean Teacher's ramp)."""
    average = start.double()
    for done, weight in enumerate(weights, 1):
        alpha = min(1 - 1 / (done + 1), DECAY)
        average = alpha * average + (1 - alpha) * weight.double()
    return average


def test_the_share_that_moves_falls_to_what_the_decay_leaves() -> None:
    rising = Average(DECAY, rises=True)
    moved = [float(rising.moves(count(done))) for done in range(6)]
    assert moved == pytest.approx([1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 5, 1 / 5], abs=1e-12)
    assert Average(DECAY).moves(count(0)) == pytest.approx(0.2)
    # In fp32 1 − 1 / (t + 1) would long be 1 where the decay is close to it.
    assert float(Average(1 - 1e-9, rises=True).moves(count(10**8))) == pytest.approx(1 / (10**8 + 2), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_averages_follow_the_recursion(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 4), (5,), ()]
    averages = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    starts = [average.clone() for average in averages]
    seen: list[list[Tensor]] = []
    for done in range(NUM_ITERATIONS):
        weights = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
        Average(DECAY, rises=True).update(averages, weights, count(done))
        seen.append(weights)
    for place, (average, start) in enumerate(zip(averages, starts, strict=True)):
        expected = by_hand([weights[place] for weights in seen], start)
        torch.testing.assert_close(
            average.double(), expected, rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=1e-6
        )


@pytest.mark.parametrize("flat", [False, True], ids=["plain", "flat"])
def test_an_iterations_end_moves_the_average_so(flat: bool) -> None:
    recipe = load_recipe("gta2cs", SMALL)
    model = begin(recipe).student
    optimizer = recipe.train.optimizer
    state = TrainingState.begin(model, optimizer, 10, DECAY, ema_rises=True, flat=flat)
    key = "head.branches.0.weight"
    start, seen = state.averaged.state_dict()[key].clone(), []
    for _ in range(4):
        adaptation_step(state, *batches(recipe), recipe, AS_IT_IS)
        seen.append(state.student.state_dict()[key].clone())
    torch.testing.assert_close(state.averaged.state_dict()[key].double(), by_hand(seen, start), rtol=1e-5, atol=1e-7)


def test_a_constant_decay_is_what_it_was() -> None:
    recipe = load_recipe("gta2cs", SMALL)
    state = TrainingState.begin(begin(recipe).student, recipe.train.optimizer, 10, DECAY)
    key = "head.branches.0.weight"
    average = state.averaged.state_dict()[key].double()
    for _ in range(3):
        adaptation_step(state, *batches(recipe), recipe, AS_IT_IS)
        average = DECAY * average + (1 - DECAY) * state.student.state_dict()[key].double()
    torch.testing.assert_close(state.averaged.state_dict()[key].double(), average, rtol=1e-5, atol=1e-7)
