"""How an iteration is run: what is tried, what is left untouched by trying, what is said when it cannot be had."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from steps import AS_IT_IS, PLAIN, STEPS, batches, begin, differ, on_gpu, tensors, tiny

import fastuda.training.cuda_graph as cuda_graph_module
import fastuda.training.iteration as iteration_module
from fastuda.data.loading.batch import DomainBatch
from fastuda.method.state import TrainingState
from fastuda.method.step import adaptation_step, warmup_step
from fastuda.recipe import Recipe
from fastuda.runtime import compiled
from fastuda.runtime.switches import configured
from fastuda.training.cuda_graph import CapturedIteration, CaptureError
from fastuda.training.iteration import Iteration


@pytest.fixture(autouse=True)
def _nothing_compiled_before() -> Iterator[None]:
    """Every network of a process counts against the compiler's limit of variants."""
    yield
    compiled.forget()


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("name", ["gta2cs", "gta2cs-released"])
def test_a_rehearsal_leaves_no_trace(name: str, scaled: bool) -> None:
    recipe = tiny(name)
    state = TrainingState.begin(begin(recipe).student, recipe.train.optimizer, 10, 0.9, scaled=scaled)
    source, target = batches(recipe)
    adaptation_step(state, source, target, recipe, AS_IT_IS)
    before, scaler, random = tensors(state), state.scaler.state_dict(), torch.get_rng_state()
    with state.rehearsal():
        for _ in range(2):
            adaptation_step(state, source, target, recipe, AS_IT_IS)
            torch.rand(3)
        assert differ(tensors(state), before)
    assert differ(tensors(state), before) == []
    assert state.scaler.state_dict() == scaler
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in state.student.parameters())


def test_a_rehearsal_that_fails_leaves_no_trace_either() -> None:
    recipe = tiny("gta2cs")
    state = begin(recipe)
    before = tensors(state)

    def broken() -> None:
        with state.rehearsal():
            adaptation_step(state, *batches(recipe), recipe, AS_IT_IS)
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        broken()
    assert differ(tensors(state), before) == []


def test_a_rehearsal_broken_off_in_the_optimisers_step_leaves_a_scaler_that_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = tiny("gta2cs", 'method.teacher_batch_norm="running"')
    state = TrainingState.begin(begin(recipe).student, recipe.train.optimizer, 10, 0.9, scaled=True)
    twin = TrainingState.begin(begin(recipe).student, recipe.train.optimizer, 10, 0.9, scaled=True)
    source, target = batches(recipe)

    def broken_off() -> None:
        with state.rehearsal(), monkeypatch.context() as patch:
            patch.setattr(torch.optim.SGD, "_init_group", lambda *_: 1 / 0)
            state.student.eval()
            adaptation_step(state, source, target, recipe, AS_IT_IS)

    with pytest.raises(ZeroDivisionError):
        broken_off()
    assert state.student.training
    for one in (state, twin):
        adaptation_step(one, source, target, recipe, AS_IT_IS)
    assert differ(tensors(state), tensors(twin)) == []


def test_the_reason_given_is_where_a_failure_began(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        try:
            raise RuntimeError("operation not permitted")
        finally:
            raise ValueError("capture invalidated")

    with pytest.raises(ValueError) as caught:
        fail()
    assert str(cuda_graph_module._root(caught.value)) == "operation not permitted"


def test_every_tensor_that_an_iteration_changes_is_among_the_states() -> None:
    recipe = tiny("gta2cs", 'method.teacher="ema"')
    state = begin(recipe)
    known = {tensor.data_ptr() for tensor in state.tensors()}
    held = [*state.student.state_dict().values(), *state.ema.state_dict().values(), state.iteration]
    held += [state.first_nonfinite, *(group["lr"] for group in state.optimizer.param_groups)]
    held += [value for entry in state.optimizer.state.values() for value in entry.values()]
    assert {tensor.data_ptr() for tensor in held} <= known


def test_plain_iterations_are_the_steps() -> None:
    recipe = tiny("gta2cs")
    plain, state = begin(recipe), begin(recipe)
    source, target = batches(recipe)
    warmup, adaptation = (Iteration(state, recipe, AS_IT_IS, PLAIN, work) for work in ("warm-up", "adaptation"))
    expected = [warmup_step(plain, source, recipe, AS_IT_IS), adaptation_step(plain, source, target, recipe, AS_IT_IS)]
    for losses, found in zip(expected, (warmup(source), adaptation(source, target)), strict=True):
        assert {name: float(loss) for name, loss in losses.items()} == {k: float(v) for k, v in found.items()}
    assert adaptation.way == "eager"
    assert differ(tensors(state), tensors(plain)) == []


def test_a_compiler_that_fails_is_said_and_done_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> Any:
        raise RuntimeError("no compiler here\nand a long story")

    recipe = tiny("gta2cs")
    state, plain = begin(recipe), begin(recipe)
    source, target = batches(recipe)
    monkeypatch.setattr("fastuda.model.passes.compiled", lambda function: fail)
    iteration = Iteration(state, recipe, AS_IT_IS, replace(PLAIN, compiled=True))
    iteration(source, target)
    assert "torch.compile failed, so iterations run eagerly: RuntimeError: no compiler here" in caplog.text
    assert "long story" not in caplog.text
    assert iteration.way == "eager"
    adaptation_step(plain, source, target, recipe, AS_IT_IS)
    assert differ(tensors(state), tensors(plain)) == []


def test_a_warning_of_the_compiler_is_not_its_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def warned(function: Any) -> Any:
        def call(*args: object) -> Any:
            warnings.warn("new in this build of torch", FutureWarning, stacklevel=1)
            return function(*args)

        return call

    recipe = tiny("gta2cs")
    monkeypatch.setattr("fastuda.model.passes.compiled", warned)
    iteration = Iteration(begin(recipe), recipe, AS_IT_IS, replace(PLAIN, compiled=True))
    with pytest.raises(FutureWarning, match="new in this build"):
        iteration(*batches(recipe))  # this test's warnings are errors; the iteration after the trial is not shielded
    assert iteration.way == "compiled"


def test_a_graph_that_cannot_be_had_is_said_and_done_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> Any:
        raise CaptureError("RuntimeError: operation not permitted when stream is capturing")

    monkeypatch.setattr(iteration_module, "capture", fail)
    recipe = tiny("gta2cs")
    state = begin(recipe)
    iteration = Iteration(state, recipe, AS_IT_IS, replace(PLAIN, graphed=True))
    iteration(*batches(recipe))
    assert "no CUDA graph, so iterations are launched (eager)" in caplog.text
    assert "operation not permitted" in caplog.text
    assert int(state.iteration) == 1


def captured(state: TrainingState, recipe: Recipe, given: tuple[DomainBatch, ...]) -> CapturedIteration:
    """What a capture makes, but for the graph: its replay runs the step on the inputs that the graph would read."""
    inputs = tuple(batch.map(torch.zeros_like) for batch in given)
    return CapturedIteration(lambda: adaptation_step(state, *inputs, recipe, AS_IT_IS), state, inputs, {})


def test_a_replay_trains_on_the_batches_that_come() -> None:
    recipe = tiny("gta2cs")
    state, plain = begin(recipe), begin(recipe)
    source, target = batches(recipe)
    graph = captured(state, recipe, (source, target))
    for _ in range(2):
        graph(source, target)
        adaptation_step(plain, source, target, recipe, AS_IT_IS)
    assert differ(tensors(state), tensors(plain)) == [], "the batches were copied to where the graph reads them"
    small = source._replace(weak=source.weak[:, :8])
    with pytest.raises(ValueError, match="a batch of"):
        graph(small, target)


def test_an_empty_graph_is_found_out_at_its_first_replay(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = tiny("gta2cs")
    state, plain = begin(recipe), begin(recipe)
    source, target = batches(recipe)
    empty = CapturedIteration(lambda: None, state, (source, target), {})
    with pytest.raises(CaptureError, match="did not train an iteration"):
        empty(source, target)
    monkeypatch.setattr(iteration_module, "capture", lambda *_: empty)
    iteration = Iteration(state, recipe, AS_IT_IS, replace(PLAIN, graphed=True))
    iteration(source, target)
    assert iteration.way == "eager"
    assert "no CUDA graph, so iterations are launched (eager): CaptureError: a replay" in caplog.text
    adaptation_step(plain, source, target, recipe, AS_IT_IS)
    assert differ(tensors(state), tensors(plain)) == [], "it was trained once all the same"


def test_a_scaled_loss_trains_as_an_unscaled_one() -> None:
    recipe = tiny("gta2cs")
    plain = begin(recipe)
    scaled = TrainingState.begin(
        begin(recipe).student, recipe.train.optimizer, 10, recipe.method.ema_decay, scaled=True
    )
    source, target = batches(recipe)
    for _ in range(3):
        for state in (plain, scaled):
            adaptation_step(state, source, target, recipe, AS_IT_IS)
    for ours, expected in zip(scaled.tensors(), plain.tensors(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_an_overflowing_gradient_moves_nothing_and_lowers_the_scale() -> None:
    recipe = tiny("gta2cs")
    state = TrainingState.begin(begin(recipe).student, recipe.train.optimizer, 10, 0.9, scaled=True)
    weight = state.student.head.branches[0].weight
    before, scale = weight.detach().clone(), state.scaler.get_scale()
    weight.grad = torch.full_like(weight, torch.inf)
    state.backward((0 * weight).sum())
    state.step_optimizer()
    assert torch.equal(weight, before)
    assert state.scaler.get_scale() == scale / 2


CLASS_BALANCED = ('mix.pseudo_labels="confident"', 'method.confident="class-balanced"')


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *((name, ()) for name in (*STEPS, "gta2cs-edge+released")),
        ("gta2cs", CLASS_BALANCED),
        ("gta2cs", (*CLASS_BALANCED, "runtime.deterministic=true")),
    ],
)
@pytest.mark.parametrize("amp", ["auto", "fp16"])
def test_on_a_gpu_an_iteration_is_one_graph(name: str, settings: tuple[str, ...], amp: str) -> None:
    recipe = tiny(name, f"runtime.amp={amp}", *settings)
    state, source, target, passes, fast = on_gpu(recipe)
    iteration = Iteration(state, recipe, passes, fast)
    with configured(recipe.runtime, source.strong.device):
        for _ in range(3):
            losses = iteration(source, target)
        assert iteration.way == "compiled graph"
        assert int(state.iteration) == 3
        assert all(torch.isfinite(loss) for loss in losses.values())
        try:
            torch.cuda.set_sync_debug_mode("error")
            iteration(source, target)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("amp", ["none", "auto", "fp16"])
def test_on_a_gpu_fast_and_plain_have_the_same_losses_over_20_iterations(amp: str) -> None:
    # bf16 has 8 bits: a loss of the same weights differs by a few 1e-3, and 20 iterations let that grow.
    tolerance = {"none": 2e-2, "auto": 8e-2, "fp16": 4e-2}[amp]
    plain_switches = [
        f"runtime.{name}=false"
        for name in ("grouped", "gemm_aspp", "fused_batch_norm", "flat_update", "compile", "cuda_graph", "tf32")
    ]
    plain_recipe, fast_recipe = (
        tiny("gta2cs", *plain_switches, "runtime.amp='none'"),
        tiny("gta2cs", f"runtime.amp={amp!r}"),
    )
    found = []
    for recipe, way in ((plain_recipe, "eager"), (fast_recipe, "graph")):
        state, source, target, passes, fast = on_gpu(recipe)
        iteration = Iteration(state, recipe, passes, fast)
        found.append([{name: float(loss) for name, loss in iteration(source, target).items()} for _ in range(20)])
        assert iteration.way == way
    for i, (expected, ours) in enumerate(zip(*found, strict=True)):
        assert ours == pytest.approx(expected, rel=tolerance, abs=tolerance), f"iteration {i}"
