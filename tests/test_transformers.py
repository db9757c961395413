"""SegFormer, DINOv2 and DINOv3 through all that fastuda does with a network."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from steps import AS_IT_IS, batches
from torch import Tensor, nn
from torch._dynamo.utils import counters
from transformers_small import KINDS, SIDES, images, network, run_settings, shallow, small
from whole_runs import run, run_killed, saved_state

import fastuda.runtime.compiled as compiled_module
from fastuda.errors import UsageError
from fastuda.evaluation.load import load
from fastuda.memory.estimate import estimate_bytes, estimate_evaluation_bytes
from fastuda.method.optimizer import made_optimizer
from fastuda.method.state import TrainingState
from fastuda.method.step import adaptation_step, warmup_step
from fastuda.model.build import build_network
from fastuda.model.passes import Passes, teaching
from fastuda.model.segmenter import Segmenter
from fastuda.recipe import Recipe
from fastuda.recipe.file import load_recipe

CPU = torch.device("cpu")
NARROW = "model.head_channels=8"
HEADS = ["mlp", "daformer", "linear"]
__all__ = ["shallow"]


# The network.


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", HEADS)
def test_shapes_positions_and_features(kind: str, head: str) -> None:
    model = network(kind, f"model.head={head}").eval()
    side, stride = SIDES[kind], {"segformer": 4, "dinov2": 14, "dinov3": 16}[kind]
    assert model.output_stride == stride
    with torch.no_grad():
        outputs = model(images(kind), features=True)
        assert model(images(kind)).features is None
    rows, columns = side // stride, 2 * side // stride
    assert outputs.logits.shape == (2, 19, rows, columns)
    assert outputs.auxiliary is None
    assert not outputs.align_corners
    assert model.settings is not None
    assert model.settings.positions((2 * side, side)) == rows * columns
    deepest = (1, 2) if kind == "segformer" else (rows, columns)
    assert outputs.features is not None
    assert outputs.features.shape == (2, model.backbone.channels[-1], *deepest)


@pytest.mark.parametrize(("width", "height"), [(32, 29), (33, 47), (100, 31), (64, 28), (28, 64)])
def test_a_mix_transformer_takes_any_image_that_leaves_a_key(width: int, height: int) -> None:
    table = small("segformer").model
    model = network("segformer").eval()
    if not table.positions((width, height)):
        assert table.refuses((width, height)) == (
            "too small for the network, which has no output for less than [29, 29]"
        )
        with pytest.raises(RuntimeError), torch.no_grad():
            model(torch.zeros(1, 3, height, width))
        return
    with torch.no_grad():
        assert model(torch.zeros(1, 3, height, width)).logits[0, 0].numel() == table.positions((width, height))


def test_images_of_no_whole_patches_are_refused_with_the_nearest_that_are() -> None:
    words = r"views\.crop_size = \[30, 28\]: sides have to be multiples of 14.*: \[28, 28\] and \[42, 28\] are"
    with pytest.raises(UsageError, match=words):
        small("dinov2", "views.crop_size=[30, 28]")
    with pytest.raises(UsageError, match=r"eval\.size = \[8, 32\]: .* multiples of 16.*: \[16, 32\] is"):
        small("dinov3", "eval.size=[8, 32]")
    with pytest.raises(UsageError, match=r"eval\.size = \[56, 28\] at eval\.scales = 0\.75: .* multiples of 14"):
        small("dinov2", "eval.scales=[0.75]")


@pytest.mark.parametrize("variant", ["mit-b6", "giant"])
def test_a_variant_that_there_is_not(variant: str) -> None:
    with pytest.raises(UsageError, match=r"model\.variant"):
        small("segformer", f"model.variant={variant}")


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize(
    "settings",
    [
        *(["model.kind=" + kind, "model.variant=" + ("mit-b0" if kind == "segformer" else "small")] for kind in KINDS),
        ["model.depth=18", "model.width=0.125"],
        ["model.kind=efficientnet-lite"],
        ["model.kind=efficientnet-lite", "model.skip=4"],
    ],
)
def test_encoding_gives_the_features_without_the_heads(settings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = ["views.source_size=[224, 112]", "views.target_size=[224, 112]", "views.crop_size=[112, 112]"]
    model = build_network(load_recipe("gta2cs", [*sizes, "eval.size=[224, 112]", *settings])).eval()
    image = torch.randn(1, 3, 112, 112)
    with torch.no_grad():
        expected = model(image, features=True).features
        assert torch.equal(Segmenter.encode(model, image), expected)

        def never(*arguments: object) -> None:
            raise AssertionError("a head was computed")

        monkeypatch.setattr(model.head, "forward", never)
        assert torch.equal(model.encode(image), expected)


# Its parameters.


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("more", [[], ["model.lora=2"]])
def test_every_trained_parameter_learns_and_is_of_a_group(kind: str, head: str, more: list[str]) -> None:
    registers = ["model.registers=true"] if kind == "dinov2" else []
    model = network(kind, f"model.head={head}", "model.stochastic_depth=0", *more, *registers).train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at first, which hides the other factor
            nn.init.ones_(parameter)
    model(images(kind)).logits.square().sum().backward()
    listed = [parameter for group in model.parameter_groups() for parameter in group.parameters]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert Counter(listed) == Counter(trained)
    unreached = [name for name, one in model.named_parameters() if one.requires_grad and one.grad is None]
    assert unreached == []
    if more:
        names = {name for name, one in model.named_parameters() if one.requires_grad}
        assert all(".lora_" in name or name.startswith("head.") for name in names)
        assert sum(".lora_" in name for name in names) == 2 * 4 * 4, "two factors, four projections, four blocks"


DEPTHS = {
    "segformer": {
        "stages.0.patch_embeddings.proj.weight": 0,
        "stages.0.blocks.0.mlp.fc1.weight": 1,
        "stages.0.layer_norm.weight": 2,
        "stages.1.patch_embeddings.proj.weight": 3,
        "stages.2.blocks.1.attention.q_proj.weight": 6,
        "stages.3.blocks.1.mlp.fc2.weight": 8,
        "stages.3.layer_norm.bias": 8,
    },
    "dinov2": {
        "embeddings.patch_embeddings.projection.weight": 0,
        "embeddings.position_embeddings": 0,
        "layers.0.norm1.weight": 1,
        "layers.11.mlp.fc2.weight": 12,
        "norm.weight": 12,
    },
    "dinov3": {"embeddings.register_tokens": 0, "layers.5.layer_scale1.lambda1": 6, "norm.bias": 12},
}


@pytest.mark.parametrize("kind", KINDS)
def test_depths_decay_and_rates(kind: str) -> None:
    model = network(kind)
    names = {parameter: name for name, parameter in model.named_parameters()}
    places = {names[one]: group for group in model.parameter_groups() for one in group.parameters}
    for name, depth in DEPTHS[kind].items():
        assert places[f"backbone.{name}"].depth == depth, name
    deepest = places["head.classify.weight"].depth
    assert deepest == 1 + max(DEPTHS[kind].values())
    for name, group in places.items():
        matrix = name.endswith(".weight") and "norm" not in name
        assert group.decays == matrix, name
        assert group.name == name.partition(".")[0]

    optimizer = ["kind=adamw", "lr_backbone=1e-3", "lr_head=1e-2", "layer_decay=0.5", "weight_decay=0.1"]
    recipe = small(kind, *(f"train.optimizer.{one}" for one in optimizer))
    made = made_optimizer(model, recipe.train.optimizer, torch.tensor(0))
    rates = {one: (group["base_rate"], group["weight_decay"]) for group in made.param_groups for one in group["params"]}
    for name, depth in DEPTHS[kind].items():
        rate, decay = rates[model.get_parameter(f"backbone.{name}")]
        assert rate == pytest.approx(1e-3 * 0.5 ** (deepest - depth)), name
        assert decay == (0.1 if places[f"backbone.{name}"].decays else 0)
    assert rates[model.get_parameter("head.classify.weight")] == (pytest.approx(1e-2), 0.1)


# What draws.


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize("kind", KINDS)
def test_a_teacher_draws_nothing_and_a_student_does(kind: str) -> None:
    model = network(kind, "model.stochastic_depth=0.5", "model.head=mlp", NARROW, "model.lora=2").train()
    before = torch.get_rng_state()
    with teaching(model), torch.no_grad():
        one, same = model(images(kind)).logits, model(images(kind)).logits
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, same)
    with torch.no_grad():
        assert not torch.equal(model.backbone(images(kind))[-1], model.backbone(images(kind))[-1])
    assert not torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", KINDS)
def test_stochastic_depth_is_the_librarys(kind: str) -> None:
    """From 0 to the rate block by block in a Mix Transformer, the same for every block else."""
    model = network(kind, "model.stochastic_depth=0.35")
    found = [module.drop_prob for module in model.backbone.modules() if hasattr(module, "drop_prob")]
    expected = [0.35 * i / 7 for i in range(1, 8)] if kind == "segformer" else [0.35] * 12
    assert found == pytest.approx(expected)
    assert not any(hasattr(module, "drop_prob") for module in network("dinov2").modules()), "none unless asked for"


# The machinery.

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


@pytest.mark.usefixtures("shallow", "_whole_patches")
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
    monkeypatch.setattr("fastuda.model.heads.mlp._DROPOUT", 0.0)
    monkeypatch.setattr("fastuda.model.heads.context._DROPOUT", 0.0)
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


@pytest.mark.usefixtures("shallow", "_whole_patches")
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


@pytest.fixture
def _traced_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile traces forward and backward as ever, and leaves the code generator out."""
    trace: Callable[..., Any] = functools.partial(torch.compile, fullgraph=True, dynamic=False, backend="aot_eager")
    monkeypatch.setattr(compiled_module, "_compiled", functools.cache(trace))
    torch.compiler.reset()
    counters.clear()


@pytest.mark.usefixtures("shallow", "_traced_alone", "_whole_patches")
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
    monkeypatch.setattr("fastuda.model.heads.mlp._DROPOUT", 0.0)
    monkeypatch.setattr("fastuda.model.heads.context._DROPOUT", 0.0)
    recipe = small(kind, *STILL, *more)
    passes = replace(EXACT, compiled=True, grouped=True)
    source, target = fitting(kind)
    state, plain = begin(recipe, flat=True), begin(recipe)
    for one, way in ((state, passes), (plain, EXACT)):
        warmup_step(one, source, recipe, way)
    ours = adaptation_step(state, source, target, recipe, passes)
    expected = adaptation_step(plain, source, target, recipe, EXACT)
    for term, loss in expected.items():
        torch.testing.assert_close(ours[term], loss, rtol=1e-5, atol=1e-7, msg=term)
    graphs = counters["stats"]["unique_graphs"]
    warmup_step(state, source, recipe, passes)
    adaptation_step(state, source, target, recipe, passes)
    assert counters["stats"]["unique_graphs"] == graphs
    assert not counters["graph_break"]
    torch.compiler.reset()


@pytest.mark.usefixtures("shallow")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_stochastic_depth_and_dropout_compile_in_one_graph(kind: str) -> None:
    torch.compiler.reset()
    model = network(kind, "model.head=daformer", NARROW, "model.stochastic_depth=0.3", "model.lora=2").train()
    traced = torch.compile(model, fullgraph=True, dynamic=False, backend="aot_eager")
    traced(images(kind), features=True).logits.square().mean().backward()
    assert all(one.grad is not None for one in model.parameters() if one.requires_grad)
    torch.compiler.reset()


@pytest.mark.usefixtures("shallow")
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


@pytest.mark.usefixtures("shallow")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", ["daformer", "linear"])
def test_it_is_exported_and_answers_the_same(kind: str, head: str) -> None:
    model = network(kind, f"model.head={head}").eval()
    exported = torch.export.export(model, (images(kind),)).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(images(kind)).logits, model(images(kind)).logits)


LARGE = ("train.batch_size=2", "train.optimizer.kind=adamw")
SIZES = {
    "segformer": ("source_size=[512, 512]", "target_size=[512, 512]", "crop_size=[512, 512]"),
    "dinov2": ("source_size=[518, 518]", "target_size=[518, 518]", "crop_size=[518, 518]"),
}


@pytest.mark.parametrize(("kind", "variant", "parameters"), [("segformer", "mit-b5", 81e6), ("dinov2", "base", 86e6)])
def test_the_large_ones_memory_is_estimated(kind: str, variant: str, parameters: float) -> None:
    sizes = [f"views.{one}" for one in SIZES[kind]]
    recipe = small(kind, f"model.variant={variant}", "runtime.amp=bf16", *LARGE, *sizes)
    with torch.device("meta"):
        number = sum(one.numel() for one in build_network(recipe).parameters())
    assert number == pytest.approx(parameters, rel=0.06)
    needed = estimate_bytes(recipe, CPU, "warm-up")
    assert 5 * 4 * number < needed < 200 * 2**30, "weights, two moments, the average and gradients, fp32 each"
    fewer = estimate_bytes(
        recipe.model_copy(update={"model": recipe.model.model_copy(update={"lora": 4})}), CPU, "warm-up"
    )
    assert fewer < needed - 2 * 4 * 0.9 * parameters, "no moments of what is frozen"


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize("kind", KINDS)
def test_counting_bytes_leaves_no_trace_in_later_passes(kind: str) -> None:
    recipe = small(kind)
    assert 0 < estimate_evaluation_bytes(recipe, CPU, 1) < estimate_bytes(recipe, CPU)
    with torch.no_grad():
        assert torch.isfinite(network(kind).eval()(images(kind)).logits).all()


# Whole runs.

TINY = ("warmup.iterations=4", "train.iterations=6", "train.evaluate_every=3", "train.log_every=2")
TEACHES = ("model.stochastic_depth=0.2", "train.optimizer.kind=adamw", "train.optimizer.layer_decay=0.9")


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("segformer", ("model.head=daformer", NARROW)),
        ("dinov2", ("model.head=linear", "runtime.flat_update=true", "runtime.grouped=true")),
        ("dinov2", ("model.head=mlp", NARROW, "model.lora=2")),
        ("dinov3", ("model.head=daformer", NARROW)),
    ],
)
def test_a_killed_run_goes_on_in_the_same_bits_and_predicts(
    kind: str, more: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe("demo", [*run_settings(kind), *TINY, *TEACHES, *more, f"data.cache={tmp_path / 'cache'}"])
    results, _ = run(recipe, tmp_path / "whole")
    assert 0 <= results["adapted"]["miou"] <= 100
    run_killed(recipe, tmp_path / "killed", monkeypatch)
    expected, found = saved_state(tmp_path / "whole"), saved_state(tmp_path / "killed")
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    trained = load(tmp_path / "whole", device="cpu")
    assert trained.network.settings == recipe.model
    assert trained.predict(np.zeros((40, 72, 3), np.uint8)).shape == (40, 72)
    average = {key.removeprefix("average."): value for key, value in expected.items() if key.startswith("average.")}
    state: dict[str, Tensor] = trained.network.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in average.items())


def test_recipes_know_the_tables_without_the_libraries() -> None:
    import subprocess
    import sys

    code = (
        "import sys, fastuda; from fastuda.recipe.file import load_recipe; from fastuda.model.family import families; "
        "load_recipe('gta2cs', ['model.kind=segformer']); print(len(families())); "
        "print(sorted({'transformers', 'peft', 'huggingface_hub', 'torchvision'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split("\n")[1:2] == ["[]"], done.stdout + done.stderr
