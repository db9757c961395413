"""What makes the step fit for a graph: fixed shapes, no number exchanged with the host, no wait for the GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from steps import AS_IT_IS, STEPS, batches, begin, on_gpu, tiny
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from fastuda.method.reference import blank_reference
from fastuda.method.state import TrainingState
from fastuda.method.step import adaptation_step, warmup_step
from fastuda.recipe import Recipe

NAMES = [*STEPS, "gta2cs-edge+released", "gta2cs+dsp-soft", "gta2cs+control"]
CLASS_BALANCED = ('mix.pseudo_labels="confident"', 'method.confident="class-balanced"')
RECIPES: list[tuple[str, tuple[str, ...]]] = [
    *((name, ()) for name in NAMES),
    ("gta2cs", ('method.student_batch_norm="running"', *CLASS_BALANCED)),
    ("gta2cs+dsp-soft", ('mix.pseudo_labels="confident"',)),
]


def begun(recipe: Recipe, *, flat: bool) -> TrainingState:
    """A state as it is without any switch, or with a network and an update that fuse all they can."""
    student = begin(recipe).student
    student.set_fused_batch_norm(flat)
    student.set_gemm_aspp(flat)
    method, reference = recipe.method, blank_reference(recipe)
    return TrainingState.begin(
        student,
        recipe.train.optimizer,
        10,
        method.ema_decay,
        ema_rises=method.ema_rises,
        flat=flat,
        reference=reference,
    )


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize(("name", "settings"), RECIPES)
def test_both_steps_have_fixed_shapes_and_ask_no_tensor_for_a_number(
    name: str, settings: tuple[str, ...], flat: bool
) -> None:
    recipe = tiny(name, *settings)
    state, (source, target) = begun(recipe, flat=flat), batches(recipe)
    with FakeTensorMode(allow_non_fake_inputs=True):
        warm = warmup_step(state, source, recipe, AS_IT_IS)
        losses = adaptation_step(state, source, target, recipe, AS_IT_IS)
    assert all(loss.shape == () for loss in (*warm.values(), *losses.values()))


def test_fake_tensors_do_refuse_to_become_a_number() -> None:
    recipe = tiny("gta2cs")
    state, (source, _) = begin(recipe), batches(recipe)
    with FakeTensorMode(allow_non_fake_inputs=True):
        losses = warmup_step(state, source, recipe, AS_IT_IS)
        with pytest.raises(DataDependentOutputException):
            losses["total"].item()


class HostTraffic(TorchDispatchMode):
    """Notes operations that read a number off the device or copy one to it: a CUDA graph holds neither."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.lift_fresh.default):
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize(("name", "settings"), RECIPES)
def test_an_iteration_exchanges_no_number_with_the_host(name: str, settings: tuple[str, ...], flat: bool) -> None:
    recipe = tiny(name, *settings)
    state, (source, target) = begun(recipe, flat=flat), batches(recipe)
    with HostTraffic() as traffic:
        warmup_step(state, source, recipe, AS_IT_IS)
        adaptation_step(state, source, target, recipe, AS_IT_IS)
    assert traffic.seen == []


def test_repeated_updates_under_a_scaler_exchange_none_either() -> None:
    recipe = tiny("gta2cs-released")
    student, (source, _) = begin(recipe).student, batches(recipe)
    state = TrainingState.begin(student, recipe.train.optimizer, 10, recipe.method.ema_decay, scaled=True)
    with HostTraffic() as traffic:
        warmup_step(state, source, recipe, AS_IT_IS)
        warmup_step(state, source, recipe, AS_IT_IS)
    assert traffic.seen == []


def test_host_traffic_is_noticed() -> None:
    with HostTraffic() as traffic:
        torch.tensor([1.0, 2.0]).sum().item()
    assert traffic.seen == ["aten.lift_fresh.default", "aten._local_scalar_dense.default"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("name", "settings"), RECIPES)
def test_an_iteration_does_not_wait_for_the_gpu(name: str, settings: tuple[str, ...]) -> None:
    recipe = tiny(name, *settings)
    state, source, target, passes, _ = on_gpu(recipe)
    adaptation_step(state, source, target, recipe, passes)
    try:
        torch.cuda.set_sync_debug_mode("error")
        adaptation_step(state, source, target, recipe, passes)
    finally:
        torch.cuda.set_sync_debug_mode("default")
