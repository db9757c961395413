"""Whole runs of SegFormer, DINOv2 and DINOv3, as small as they can be, and the memory of large ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers_small import KINDS, images, network, run_settings, small
from whole_runs import run, run_killed, saved_state

from fastuda.evaluation.load import load
from fastuda.memory.estimate import estimate_bytes, estimate_evaluation_bytes
from fastuda.model.build import build_network
from fastuda.recipe.file import load_recipe

CPU = torch.device("cpu")
NARROW = "model.head_channels=8"
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


@pytest.mark.usefixtures("shallow_transformers")
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_frozen_has_no_moments_and_no_gradients(kind: str) -> None:
    whole, updates = (
        estimate_bytes(small(kind, *LARGE, NARROW, f"model.lora={rank}"), CPU, "warm-up") for rank in (0, 1)
    )
    frozen = sum(one.numel() for one in network(kind, "model.lora=1").parameters() if not one.requires_grad)
    assert updates < whole - 2 * 4 * 0.9 * frozen


@pytest.mark.usefixtures("shallow_transformers")
@pytest.mark.parametrize("kind", KINDS)
def test_counting_bytes_leaves_no_trace_in_later_passes(kind: str) -> None:
    recipe = small(kind)
    assert 0 < estimate_evaluation_bytes(recipe, CPU, 1) < estimate_bytes(recipe, CPU)
    with torch.no_grad():
        assert torch.isfinite(network(kind).eval()(images(kind)).logits).all()


TINY = ("warmup.iterations=4", "train.iterations=6", "train.evaluate_every=3", "train.log_every=2")
TEACHES = ("model.stochastic_depth=0.2", "train.optimizer.kind=adamw", "train.optimizer.layer_decay=0.9")


@pytest.mark.usefixtures("shallow_transformers")
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
