"""EfficientNet-Lite: where its positions look, its steps, and whole runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compiled_steps import hold_to_plain, traced_alone
from steps import AS_IT_IS, batches
from torch import Tensor, nn
from torch.nn import functional as F
from whole_runs import TINY, run, run_killed, saved_state

import fastuda.model.efficientnet_lite.shape as shape_module
from fastuda.errors import FastudaError
from fastuda.evaluation.load import load
from fastuda.memory.estimate import estimate_bytes
from fastuda.method.state import TrainingState
from fastuda.method.step import adaptation_step, warmup_step
from fastuda.model.build import build_model, build_network, read_model
from fastuda.model.efficientnet_lite.backbone import EfficientNetLite
from fastuda.model.efficientnet_lite.block import SameConv2d
from fastuda.model.efficientnet_lite.importer import shapes_of
from fastuda.model.efficientnet_lite.network import LiteSegmenter
from fastuda.model.efficientnet_lite.shape import SCALES, stages_of
from fastuda.model.efficientnet_lite.table import Table
from fastuda.model.passes import Passes
from fastuda.model.segmenter import described
from fastuda.model.weights import save_weights
from fastuda.recipe import Recipe
from fastuda.recipe.file import load_recipe
from fastuda_cli.main import app

CPU = torch.device("cpu")
KIND = "model.kind=efficientnet-lite"
SMALL = [KIND, "model.weights=random", *(one for one in TINY if not one.startswith("model."))]


def lite(*settings: str) -> Recipe:
    return load_recipe("gta2cs", [KIND, "model.weights=random", *settings])


def network(*settings: str) -> LiteSegmenter:
    torch.manual_seed(0)
    model = build_network(lite(*settings))
    assert isinstance(model, LiteSegmenter)
    return model


# The network.


def test_variants_have_the_published_widths_and_depths() -> None:
    assert [stage.channels for stage in stages_of("lite0")] == [16, 24, 40, 80, 112, 192, 320]
    assert [stage.channels for stage in stages_of("lite2")] == [16, 24, 48, 88, 120, 208, 352]
    assert [stage.repeats for stage in stages_of("lite2")] == [1, 3, 3, 4, 4, 5, 1]
    assert [stage.channels for stage in stages_of("lite4")] == [24, 32, 56, 112, 160, 272, 448]
    assert [stage.repeats for stage in stages_of("lite4")] == [1, 4, 4, 6, 6, 8, 1]


@pytest.mark.parametrize(("stride", "skip"), [(8, 0), (16, 0), (16, 12), (8, 12)])
def test_output_strides_and_positions(stride: int, skip: int) -> None:
    model = network(f"model.output_stride={stride}", f"model.skip={skip}").eval()
    table = model.settings
    assert table is not None
    assert model.output_stride == (4 if skip else stride)
    for width, height in ((64, 48), (65, 33), (50, 31), (1, 1)):
        outputs = model(torch.zeros(1, 3, height, width), features=True)
        rows, columns = -(-height // model.output_stride), -(-width // model.output_stride)
        assert outputs.logits.shape == (1, 19, rows, columns)
        assert outputs.auxiliary is not None
        assert outputs.features is not None
        assert outputs.auxiliary.shape == outputs.logits.shape
        assert outputs.features.shape == (1, 320, rows, columns)
        assert table.positions((width, height)) == rows * columns
        assert not outputs.align_corners


def test_padding_by_hand() -> None:
    """Of eight numbers in a row, three at a time, every second: TensorFlow's begin at the first number."""
    row = torch.arange(1.0, 9.0)[None, None, None]
    layer = SameConv2d(1, 1, 3, stride=2)
    nn.init.ones_(layer.weight)
    column = row[:, :, :, :1]
    assert layer(row).flatten().tolist() == [3, 9, 15, 21]
    layer.trailing = True
    assert layer(row).flatten().tolist() == [6, 12, 18, 15]
    assert layer(row.mT).flatten().tolist() == [6, 12, 18, 15]
    assert layer(row[..., :7]).flatten().tolist() == [3, 9, 15, 13], "an odd side has as much at either end"
    assert layer(column).item() == 1
    wide = SameConv2d(1, 1, 5, stride=2)
    nn.init.ones_(wide.weight)
    wide.trailing = True
    assert wide(row).flatten().tolist() == [10, 20, 30, 21]
    dilated = SameConv2d(1, 1, 3, dilation=2)
    nn.init.ones_(dilated.weight)
    dilated.trailing = True
    assert dilated(row).flatten().tolist() == [4, 6, 9, 12, 15, 18, 12, 14]


@pytest.mark.parametrize(("stride", "fine"), [(8, False), (16, False), (8, True), (16, True)])
def test_positions_look_at_the_middle_of_their_share_of_the_image(stride: int, fine: bool) -> None:
    backbone = EfficientNetLite("lite0", output_stride=stride, fine=fine)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.ones_(module.weight)
            module.weight.data /= module.weight[0].numel()
    backbone.eval()
    images = torch.full((1, 3, 32, 768), 0.01, requires_grad=True)
    found = backbone(images)
    seen = [(found.last, stride, 1.5 if fine else 0.5)] + [(found.fine, 4, 0.5)] * fine
    for features, every, off in seen:
        place = features.shape[3] // 2
        (gradient,) = torch.autograd.grad(features[..., place].sum(), images, retain_graph=True)
        weight = gradient.abs().sum((0, 1, 2))
        centre = float((weight * torch.arange(len(weight))).sum() / weight.sum())
        assert abs(centre - (place * every + (every - 1) / 2)) == pytest.approx(off, abs=0.05)


def test_dilated_features_are_those_of_the_original_at_every_place() -> None:
    """At twice the positions, every second one along each side is what the strided network computes there."""
    torch.manual_seed(0)
    coarse, dense = (EfficientNetLite("lite0", output_stride=stride).eval() for stride in (16, 8))
    dense.load_state_dict(coarse.state_dict())
    for module in (*coarse.modules(), *dense.modules()):
        if isinstance(module, SameConv2d):
            module.trailing = False
    images = torch.randn(1, 3, 256, 256)
    with torch.no_grad():
        expected, found = coarse(images).auxiliary, dense(images).auxiliary[:, :, ::2, ::2]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_every_parameter_learns_and_is_of_a_group() -> None:
    model = network("model.skip=8").train()
    outputs = model(torch.randn(2, 3, 64, 64), features=True)
    assert outputs.auxiliary is not None
    (outputs.logits.square().sum() + outputs.auxiliary.square().sum()).backward()
    groups = model.parameter_groups()
    listed = [parameter for group in groups for parameter in group.parameters]
    assert len(listed) == len(set(listed)) == len(list(model.parameters()))
    assert all(parameter.grad is not None for parameter in listed)
    assert {(group.name, group.depth) for group in groups} == {*(("backbone", i) for i in range(8)), ("head", 8)}
    head = set(groups[-1].parameters)
    assert head == {p for name, p in model.named_parameters() if not name.startswith("backbone.")}


def test_a_skip_adds_fine_scores_to_upsampled_ones() -> None:
    model = network("model.skip=8").eval()
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        found, outputs = model.backbone(images), model(images)
        assert model.skip is not None
        upsampled = F.interpolate(model.head(found.last), scale_factor=4, mode="bilinear", align_corners=False)
        torch.testing.assert_close(outputs.logits, upsampled + model.skip(found.fine))


def test_the_input_convention_by_hand() -> None:
    seen: list[Tensor] = []

    class Witness(LiteSegmenter):
        def forward(self, images: Tensor, *, features: bool = False) -> Any:
            seen.append(images)
            return super().forward(images, features=features)

    recipe = lite()
    model = Witness(Table(), 19).eval()
    pixel = torch.tensor([[[[10, 127, 255]]]], dtype=torch.uint8)
    Passes.of(recipe, CPU).raw(model, pixel)
    assert seen[0].flatten().tolist() == pytest.approx([-117 / 128, 0, 1])


def test_own_files_say_all_of_the_network(tmp_path: Path) -> None:
    model = network("model.variant=lite1", "model.skip=8", "model.output_stride=8", "model.auxiliary=false").eval()
    save_weights(tmp_path / "own.safetensors", model.state_dict(), described(model))
    again, imported = read_model(tmp_path / "own.safetensors", CPU)
    assert (imported.origin, imported.input) == ("fastuda", "rgb-tf")
    images = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        torch.testing.assert_close(again(images).logits, model(images).logits, rtol=1e-4, atol=1e-5)
    recipe = lite("model.variant=lite1")
    same, resolved = build_model(recipe, tmp_path, init=tmp_path / "own.safetensors")
    assert isinstance(resolved.model, Table)
    assert (resolved.model.skip, resolved.model.output_stride, resolved.model.auxiliary) == (8, 8, False)
    assert same.output_stride == 4
    with pytest.raises(FastudaError, match=r"it holds lite1, the recipe wants lite0: --set model\.variant=lite1"):
        build_model(lite(), tmp_path, init=tmp_path / "own.safetensors")


# The machinery.


@pytest.fixture
def _shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of at most two blocks a stage."""
    shallow = tuple(stage._replace(repeats=min(2, stage.repeats)) for stage in shape_module._STAGES)
    monkeypatch.setattr(shape_module, "_STAGES", shallow)


EXACT = replace(AS_IT_IS, normalisation=AS_IT_IS.normalisation._replace(dtype=torch.float64))


def begin(recipe: Recipe, flat: bool = False) -> TrainingState:
    torch.manual_seed(0)
    model = build_network(recipe).double().train()
    return TrainingState.begin(model, recipe.train.optimizer, 10, recipe.method.ema_decay, flat=flat)


@pytest.mark.usefixtures("_shallow")
@pytest.mark.parametrize("skip", [0, 8])
def test_grouped_and_flat_steps_have_the_plain_ones_losses(skip: int) -> None:
    recipe = lite("model.output_stride=8", f"model.skip={skip}")
    states, losses = [], []
    for fast in (False, True):
        torch.manual_seed(0)
        model = build_network(recipe).double().train()
        if fast:
            for module in model.modules():
                if hasattr(module, "fused"):
                    module.fused = True
                if hasattr(module, "gemm"):
                    module.gemm = True
        assert model.can_group
        state = TrainingState.begin(model, recipe.train.optimizer, 10, recipe.method.ema_decay, flat=fast)
        passes = replace(EXACT, grouped=fast)
        source, target = batches(recipe)
        warmup_step(state, source, recipe, passes)
        losses.append(
            {key: float(value) for key, value in adaptation_step(state, source, target, recipe, passes).items()}
        )
        states.append(state.student.state_dict())
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=1e-5, atol=1e-7, msg=key)


@pytest.mark.usefixtures("_shallow")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_both_steps_compile_without_a_break(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = lite("model.skip=8", "model.output_stride=8")
    passes = replace(EXACT, compiled=True, grouped=True)
    source, target = batches(recipe)
    state, plain = begin(recipe, flat=True), begin(recipe)
    with traced_alone(monkeypatch):
        hold_to_plain((state, passes), (plain, EXACT), source, target, recipe, rtol=1e-6, atol=1e-8)


def test_memory_is_estimated_and_finer_output_needs_more() -> None:
    sizes = ("views.source_size=[256, 128]", "views.target_size=[256, 128]", "views.crop_size=[128, 128]")
    few, more = (estimate_bytes(lite(f"model.output_stride={stride}", *sizes), CPU) for stride in (16, 8))
    assert 0 < few < more


@pytest.mark.usefixtures("_shallow")
def test_a_killed_run_goes_on_in_the_same_bits_and_predicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe("demo", [*SMALL, f"data.cache={tmp_path / 'cache'}", "model.skip=4"])
    results, _ = run(recipe, tmp_path / "whole")
    assert 0 <= results["adapted"]["miou"] <= 100
    run_killed(recipe, tmp_path / "killed", monkeypatch)
    expected, found = saved_state(tmp_path / "whole"), saved_state(tmp_path / "killed")
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    trained = load(tmp_path / "whole", device="cpu")
    labels = trained.predict(np.zeros((40, 72, 3), np.uint8))
    assert labels.shape == (40, 72)


def test_the_command_trains_the_packages_start_in_the_demo(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from typer.testing import CliRunner

    settings = [*(one for one in SMALL if one != "model.weights=random"), "model.weights=imagenet"]
    arguments = [part for one in (*settings, f"data.cache={tmp_path / 'cache'}") for part in ("--set", one)]
    done = CliRunner().invoke(app, ["train", "demo", "--run", str(tmp_path / "run"), "--device", "cpu", *arguments])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run" / "results.json").exists()
    assert "efficientnet-lite0-57934424.pth" in caplog.text


def test_all_variants_are_known_by_their_keys() -> None:
    assert len({tuple(shapes_of(variant).items()) for variant in SCALES}) == len(SCALES)
