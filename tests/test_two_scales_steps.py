"""Iterations and runs of networks of two scales: grouped, compiled, without memory, killed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from compiled_steps import hold_to_plain, traced_alone
from steps import AS_IT_IS
from test_step_capture import HostTraffic
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers_small import run_settings
from two_scales_small import NARROW, STILL, settings, two_scales, whole_positions, without_draws
from whole_runs import run, run_killed, saved_state

from fastuda.evaluation.load import load
from fastuda.memory.estimate import estimate_bytes, estimate_evaluation_bytes
from fastuda.method.reference import blank_reference
from fastuda.method.state import TrainingState
from fastuda.method.step import adaptation_step, warmup_step
from fastuda.model.build import build_network
from fastuda.model.transformer.two_scales import TwoScales
from fastuda.recipe import Recipe
from fastuda.recipe.file import load_recipe

CPU = torch.device("cpu")
EXACT = replace(AS_IT_IS, normalisation=AS_IT_IS.normalisation._replace(dtype=torch.float64))
MIC = ("terms.masked.weight=1", "terms.masked.block=32", "terms.feature_distance.weight=0.01", "quality.enabled=true")
EMA = ('method.teacher="ema"', *MIC)


def begin(recipe: Recipe, *, flat: bool = False, fused: bool = False) -> TrainingState:
    torch.manual_seed(0)
    model = build_network(recipe).double().train()
    for module in model.modules():
        if hasattr(module, "fused"):
            module.fused = fused  # type: ignore[assignment]
    reference = blank_reference(recipe)
    decay = recipe.method.ema_decay
    return TrainingState.begin(
        model, recipe.train.optimizer, 10, decay, flat=flat, reference=reference and reference.double()
    )


@pytest.mark.usefixtures("shallow_transformers")
@pytest.mark.parametrize(
    ("kind", "more"),
    [("segformer", ("model.head=daformer", NARROW, *EMA)), ("dinov2", ("model.head=linear",))],
)
def test_grouped_and_flat_steps_have_the_plain_ones_losses_with_one_place(
    kind: str, more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass that views share has one place for all of them; with that place in every pass nothing differs but the
    order in which BatchNorm's running statistics see contexts and details."""
    without_draws(monkeypatch, *((8, 24) if kind == "segformer" else (28, 28)))
    recipe, (source, target) = two_scales(kind, *STILL, *more), whole_positions(monkeypatch, kind)
    states, losses = [], []
    for fast in (False, True):
        state = begin(recipe, flat=fast, fused=fast)
        assert state.student.can_group
        passes = replace(EXACT, grouped=fast)
        warmup_step(state, source, recipe, passes)
        losses.append(
            {key: float(value) for key, value in adaptation_step(state, source, target, recipe, passes).items()}
        )
        states.append(state.student.state_dict())
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    for key, value in states[0].items():
        if "running" not in key:
            torch.testing.assert_close(states[1][key], value, rtol=1e-4, atol=1e-6, msg=key)


@pytest.mark.usefixtures("shallow_transformers")
def test_views_that_share_a_pass_share_its_place_and_others_have_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, (source, target) = two_scales("segformer", *STILL, *EMA), whole_positions(monkeypatch)
    draws, draw = [0], TwoScales.drawn_place

    def counting(self: TwoScales, images: torch.Tensor) -> torch.Tensor:
        draws[0] += 1
        return draw(self, images)

    monkeypatch.setattr(TwoScales, "drawn_place", counting)
    for grouped in (False, True):
        draws[0] = 0
        adaptation_step(begin(recipe), source, target, recipe, replace(EXACT, grouped=grouped))
        assert draws[0] == (1 + 1 if grouped else 1 + 4), "the source view; strong, weak, htcm, masked"


@pytest.mark.usefixtures("shallow_transformers")
@pytest.mark.parametrize("grouped", [False, True])
def test_steps_have_fixed_shapes_and_exchange_no_number_with_the_host(
    grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = two_scales("segformer", "model.head=daformer", NARROW, *EMA)
    source, target = whole_positions(monkeypatch)
    passes = replace(EXACT, grouped=grouped)
    state = begin(recipe)
    with FakeTensorMode(allow_non_fake_inputs=True):
        warmup_step(state, source, recipe, passes)
        losses = adaptation_step(state, source, target, recipe, passes)
    assert all(loss.shape == () for loss in losses.values())
    state = begin(recipe)
    with HostTraffic() as traffic:
        adaptation_step(state, source, target, recipe, passes)
    assert traffic.seen == []


@pytest.mark.usefixtures("shallow_transformers")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_an_iteration_compiles_without_a_break(monkeypatch: pytest.MonkeyPatch) -> None:
    without_draws(monkeypatch)
    recipe = two_scales("segformer", "model.head=daformer", NARROW, *STILL, *EMA)
    source, target = whole_positions(monkeypatch)
    passes = replace(EXACT, compiled=True, grouped=True)
    state, plain = begin(recipe, flat=True, fused=True), begin(recipe)
    with traced_alone(monkeypatch):
        hold_to_plain((state, passes), (plain, EXACT), source, target, recipe, rtol=1e-5, atol=1e-7, warms=False)


@pytest.mark.usefixtures("shallow_transformers")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_generated_code_computes_what_is_written_at_a_drawn_place(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.compiler.reset()
    torch.manual_seed(0)
    model = build_network(two_scales("segformer", "model.stochastic_depth=0", "model.head=linear")).train()
    images = torch.randn(2, 3, 64, 128)
    compiled = torch.compile(model, fullgraph=True, dynamic=False, options={"cpp.simdlen": 1})
    places = set()
    for _ in range(3):
        with torch.no_grad():
            found = compiled(images)
            place = found.detail.place.tolist()
            places.add(tuple(place))
            with monkeypatch.context() as patch:
                without_draws(patch, *place)
                expected = model(images)
        torch.testing.assert_close(found.logits, expected.logits, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found.detail.logits, expected.detail.logits, rtol=1e-3, atol=1e-4)
    assert len(places) > 1
    torch.compiler.reset()


@pytest.mark.usefixtures("shallow_transformers")
def test_it_trains_in_low_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = ("kind=adamw", "ramp_up=0", "lr_backbone=1e-3", "lr_head=1e-3")
    recipe = two_scales("segformer", *(f"train.optimizer.{one}" for one in optimizer), "model.head=daformer", NARROW)
    source, target = whole_positions(monkeypatch)
    torch.manual_seed(0)
    model = build_network(recipe).train()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    state = TrainingState.begin(model, recipe.train.optimizer, 10, 0.9, flat=True, precision=torch.bfloat16)
    passes = replace(AS_IT_IS, amp=torch.bfloat16, grouped=True)
    for _ in range(3):
        adaptation_step(state, source, target, recipe, passes)
    assert int(state.first_nonfinite) == -1
    still = {name for name, value in model.named_parameters() if torch.equal(value, before[name])}
    assert still <= {name for name in before if "k_proj" in name}


@pytest.mark.usefixtures("shallow_transformers")
def test_memory_is_estimated_one_detail_at_a_time_in_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = two_scales("segformer", "eval.size=[256, 128]", "model.detail=64")
    found = estimate_evaluation_bytes(recipe, CPU, 4)
    assert estimate_bytes(recipe, CPU, "warm-up") > 0
    monkeypatch.setattr("fastuda.model.transformer.two_scales._together", lambda head: True)
    assert found < 0.5 * estimate_evaluation_bytes(recipe, CPU, 4)


@pytest.mark.usefixtures("shallow_transformers")
def test_a_killed_run_goes_on_in_the_same_bits_and_predicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = ("warmup.iterations=4", "train.iterations=6", "train.evaluate_every=3", "train.log_every=2")
    more = [*tiny, "train.optimizer.kind=adamw", "model.head=daformer", NARROW, *EMA]
    sizes = [*run_settings("segformer"), *settings("segformer"), f"data.cache={tmp_path / 'cache'}"]
    recipe = load_recipe("demo", [*sizes, *more])
    results, _ = run(recipe, tmp_path / "whole")
    assert 0 <= results["adapted"]["miou"] <= 100
    run_killed(recipe, tmp_path / "killed", monkeypatch)
    expected, found = saved_state(tmp_path / "whole"), saved_state(tmp_path / "killed")
    assert any("two_scales.attention" in key for key in expected)
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    trained = load(tmp_path / "whole", device="cpu")
    assert trained.network.settings == recipe.model
    assert trained.predict(torch.zeros(40, 72, 3, dtype=torch.uint8).numpy()).shape == (40, 72)
