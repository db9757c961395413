"""A network's compiled steps held to its plain ones: the same losses, traced once and without a break."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

import fastuda.runtime.compiled as compiled_module
from fastuda.data.loading.batch import DomainBatch
from fastuda.method.state import TrainingState
from fastuda.method.step import adaptation_step, warmup_step
from fastuda.model.passes import Passes
from fastuda.recipe import Recipe


@contextmanager
def traced_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """While entered, torch.compile traces forward and backward as ever, and leaves the code generator out."""
    trace: Callable[..., Any] = functools.partial(torch.compile, fullgraph=True, dynamic=False, backend="aot_eager")
    monkeypatch.setattr(compiled_module, "_compiled", functools.cache(trace))
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def hold_to_plain(
    compiled: tuple[TrainingState, Passes],
    plain: tuple[TrainingState, Passes],
    source: DomainBatch,
    target: DomainBatch,
    recipe: Recipe,
    *,
    rtol: float,
    atol: float,
    warms: bool = True,
) -> None:
    """Both steps, or the adaptation's alone, give the plain ones' losses; a second call traces nothing more."""
    found: list[dict[str, Any]] = []
    for state, passes in (compiled, plain):
        if warms:
            warmup_step(state, source, recipe, passes)
        found.append(adaptation_step(state, source, target, recipe, passes))
    ours, expected = found
    for term, loss in expected.items():
        torch.testing.assert_close(ours[term], loss, rtol=rtol, atol=atol, msg=term)
    graphs = counters["stats"]["unique_graphs"]
    state, passes = compiled
    if warms:
        warmup_step(state, source, recipe, passes)
    adaptation_step(state, source, target, recipe, passes)
    assert counters["stats"]["unique_graphs"] == graphs > 0
    assert not counters["graph_break"]
