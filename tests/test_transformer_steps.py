"""Steps of SegFormer, DINOv2 and DINOv3: grouped, flat, in low precision, compiled, exported."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from compiled_steps import hold_to_plain, traced_alone
from steps import AS_IT_IS, batches
from transformers_small import KINDS, SIDES, images, network, small

from fastuda.method.state import TrainingState
from fastuda.method.step import adaptation_step, warmup_step
from fastuda.model.build import build_network
from fastuda.model.passes import Passes
from fastuda.model.place import placed
from fastuda.recipe import Recipe
from fastuda.runtime.fast_path import FastPath
from fastuda.training.iteration import Iteration

NARROW = "model.head_channels=8"
EXACT = replace(AS_IT_IS, normalisation=AS_IT_IS.normalisation._replace(dtype=torch.float64))


def fitting(kind: str) -> tuple[Any, Any]:
    """Batches of `steps`, whose sizes are patched to be of whole patches."""
    return batches(small(kind))


@pytest.fixture
def _whole_patches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    side = SIDES[request.getfixturevalue("kind")]
    monkeypatch.setattr("steps.CROP", (side, side))
    monkeypatch.setattr("steps.VIEW", (side, 2 * side))


def begin(recipe: Recipe, flat: bool = False) -> TrainingState:
    torch.manual_seed(0)
    model = build_network(recipe).double().train()
    return TrainingState.begin(model, recipe.train.optimizer, 10, recipe.method.ema_decay, flat=flat)


STILL = ("model.stochastic_depth=0", "train.optimizer.kind=adamw")


@pytest.mark.usefixtures("shallow_transformers", "_whole_patches")
@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("segformer", ("model.head=daformer", NARROW)),
        ("dinov2", ("model.head=mlp", NARROW, "model.registers=true")),
        ("dinov2", ("model.lora=2",)),
        ("dinov3", ()),
    ],
)
def test_grouped_and_flat_steps_have_the_plain_ones_losses(
    kind: str, more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastuda.model.transformer.heads.mlp._DROPOUT", 0.0)
    monkeypatch.setattr("fastuda.model.transformer.heads.context._DROPOUT", 0.0)
    recipe = small(kind, *STILL, *more)
    source, target = fitting(kind)
    states, losses = [], []
    for fast in (False, True):
        state = begin(recipe, flat=fast)
        assert state.student.can_group
        passes = replace(EXACT, grouped=fast)
        warmup_step(state, source, recipe, passes)
        found = adaptation_step(state, source, target, recipe, passes)
        losses.append({key: float(value) for key, value in found.items()})
        states.append(state.student.state_dict())
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=1e-4, atol=1e-6, msg=key)


@pytest.mark.usefixtures("shallow_transformers", "_whole_patches")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("amp", [None, torch.bfloat16])
@pytest.mark.parametrize("more", [("model.head=mlp", NARROW), ("model.head=daformer", NARROW, "model.lora=2")])
def test_low_precision_copies_train(kind: str, amp: torch.dtype | None, more: tuple[str, ...]) -> None:
    optimizer = ("kind=adamw", "ramp_up=0", "lr_backbone=1e-3", "lr_head=1e-3")
    recipe = small(kind, *(f"train.optimizer.{one}" for one in optimizer), *more)
    torch.manual_seed(0)
    model = build_network(recipe).train()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    decay = recipe.method.ema_decay
    state = TrainingState.begin(model, recipe.train.optimizer, 10, decay, flat=True, precision=amp)
    source, target = fitting(kind)
    passes = Passes(AS_IT_IS.normalisation, amp, grouped=True)
    for _ in range(3):
        adaptation_step(state, source, target, recipe, passes)
    assert int(state.first_nonfinite) == -1
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    # A key's bias shifts all of a query's scores alike, so that rounding alone moves it.
    assert trained - moved <= {name for name in trained if "k_proj" in name}
    assert moved <= trained


@pytest.mark.usefixtures("shallow_transformers", "_whole_patches")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("segformer", ("model.head=daformer", NARROW)),
        ("dinov2", ("model.head=linear",)),
        ("dinov2", ("model.head=mlp", NARROW, "model.registers=true", "model.lora=2")),
        ("dinov3", ("model.head=mlp", NARROW)),
    ],
)
def test_both_steps_compile_without_a_break(kind: str, more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastuda.model.transformer.heads.mlp._DROPOUT", 0.0)
    monkeypatch.setattr("fastuda.model.transformer.heads.context._DROPOUT", 0.0)
    recipe = small(kind, *STILL, *more)
    passes = replace(EXACT, compiled=True, grouped=True)
    source, target = fitting(kind)
    state, plain = begin(recipe, flat=True), begin(recipe)
    with traced_alone(monkeypatch):
        hold_to_plain((state, passes), (plain, EXACT), source, target, recipe, rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("shallow_transformers")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_stochastic_depth_and_dropout_compile_in_one_graph(kind: str) -> None:
    torch.compiler.reset()
    model = network(kind, "model.head=daformer", NARROW, "model.stochastic_depth=0.3", "model.lora=2").train()
    traced = torch.compile(model, fullgraph=True, dynamic=False, backend="aot_eager")
    traced(images(kind), features=True).logits.square().mean().backward()
    assert all(one.grad is not None for one in model.parameters() if one.requires_grad)
    torch.compiler.reset()


@pytest.mark.usefixtures("shallow_transformers")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_generated_code_computes_what_is_written() -> None:
    torch.compiler.reset()
    model = network("segformer", "model.head=mlp").eval()
    # Vector code takes the compiler half as long again.
    compiled = torch.compile(model, fullgraph=True, dynamic=False, options={"cpp.simdlen": 1})
    with torch.no_grad():
        found, expected = compiled(images("segformer")).logits, model(images("segformer")).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.compiler.reset()


@pytest.mark.usefixtures("shallow_transformers")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", ["daformer", "linear"])
def test_it_is_exported_and_answers_the_same(kind: str, head: str) -> None:
    model = network(kind, f"model.head={head}").eval()
    exported = torch.export.export(model, (images(kind),)).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(images(kind)).logits, model(images(kind)).logits)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.usefixtures("shallow_transformers", "_whole_patches")
@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("segformer", ("model.head=daformer", NARROW)),
        ("dinov2", ("model.head=linear", "model.registers=true")),
        ("dinov2", ("model.lora=2",)),
        ("dinov3", ("model.head=mlp", NARROW)),
    ],
)
def test_on_a_gpu_an_iteration_is_one_graph(kind: str, more: tuple[str, ...]) -> None:
    recipe, device = small(kind, *more), torch.device("cuda")
    fast = FastPath.of(recipe.runtime, device)
    student = placed(build_network(recipe).train(), fast, device)
    state = TrainingState.begin(
        student, recipe.train.optimizer, 30, recipe.method.ema_decay, flat=fast.flat_update, precision=fast.amp
    )
    iteration = Iteration(state, recipe, Passes.of(recipe, device), fast)
    source, target = (batch.map(lambda tensor: tensor.to(device)) for batch in fitting(kind))
    for _ in range(3):
        losses = iteration(source, target)
    assert iteration.way == "compiled graph"
    assert all(torch.isfinite(loss) for loss in losses.values())
