"""What a recipe may lower so that it fits into memory: which fields, in which order, and how much each would save."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from steps import tiny

import fastuda.memory.savings as savings_module
from fastuda.memory.estimate import TrainingWork, estimate_bytes, estimate_evaluation_bytes
from fastuda.memory.savings import Saving, savings
from fastuda.model.build import build_network
from fastuda.recipe import Recipe

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def fields(found: Sequence[Saving]) -> list[str]:
    return [one.settings for one in found]


def _iteration_bytes(recipe: Recipe, device: torch.device, work: TrainingWork = "adaptation") -> int:
    """A peak that is the source view's or that of the mixed crops, whichever is larger, as in a real iteration."""
    views, each = recipe.views, recipe.train.batch_size * (8 if recipe.runtime.amp == "none" else 4)
    area = {name: size[0] * size[1] for name, size in views if name.endswith("_size")}
    source = area["source_size"] if views.whole else area["crop_size"]
    passes: list[float] = [source]
    if work == "adaptation":
        passes += [2 * area["crop_size"], area["target_size"] / 16 if views.whole else 0]
    return 1000 + int(each * max(passes))


def _evaluation_bytes(recipe: Recipe, device: torch.device, batch_size: int) -> int:
    width, height = recipe.eval.size
    each = (2 if recipe.runtime.amp == "none" else 1) * (1.5 if recipe.eval.flip else 1)
    return 1000 + int(batch_size * width * height * max(recipe.eval.scales) ** 2 * each)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimates by a formula: the real ones take seconds each."""
    monkeypatch.setattr(savings_module, "estimate_bytes", _iteration_bytes)
    monkeypatch.setattr(savings_module, "estimate_evaluation_bytes", _evaluation_bytes)


CROPS_ARE_THE_PEAK = ["views.source_size=[256, 128]", "views.target_size=[256, 128]", "views.crop_size=[160, 160]"]

VIEW_IS_THE_PEAK = ["views.source_size=[512, 256]", "views.target_size=[64, 64]", "views.crop_size=[64, 64]"]

TARGET_IS_THE_PEAK = ["views.source_size=[64, 64]", "views.target_size=[1024, 512]", "views.crop_size=[64, 64]"]

EQUAL = ["views.source_size=[256, 128]", "views.target_size=[256, 128]", "views.crop_size=[128, 128]"]

ONE = "train.batch_size=1"

_BATCH, _CROP, _SOURCE = ("--set " + one for one in (
    "train.batch_size=1", "views.crop_size=[120,120]", "views.source_size=[384,192]"
))  # fmt: skip


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize(
    ("work", "device", "settings", "expected"),
    [
        ("adaptation", CPU, CROPS_ARE_THE_PEAK, [_BATCH, _CROP, f"{_BATCH} {_CROP}"]),
        ("adaptation", CPU, VIEW_IS_THE_PEAK, ["--set views.whole=false", _BATCH, _SOURCE]),
        ("warm-up", CPU, VIEW_IS_THE_PEAK, [_BATCH, _SOURCE, f"{_BATCH} {_SOURCE}"]),
        ("adaptation", CPU, [*TARGET_IS_THE_PEAK, ONE], ["--set views.target_size=[768,384]"]),
        ("warm-up", CPU, [*VIEW_IS_THE_PEAK, ONE], [_SOURCE]),
        ("warm-up", CPU, [*CROPS_ARE_THE_PEAK, ONE, "views.whole=false"], [_CROP]),
        ("adaptation", CPU, [*CROPS_ARE_THE_PEAK, "source_mix.enabled=true"], [_CROP]),
        (
            "adaptation", CPU, [*EQUAL, ONE],
            ["--set views.crop_size=[96,96] --set views.source_size=[192,96] --set views.whole=false"],
        ),
        (
            "adaptation", GPU, [*CROPS_ARE_THE_PEAK, ONE, 'runtime.amp="none"'],
            ['--set runtime.amp="auto"', _CROP, f'--set runtime.amp="auto" {_CROP}'],
        ),
        ("adaptation", CPU, [*CROPS_ARE_THE_PEAK, ONE, 'runtime.amp="none"'], [_CROP]),
        (
            "evaluation", GPU,
            ["eval.size=[256, 128]", "eval.flip=true", "eval.scales=[1.0, 2.0]", 'runtime.amp="none"'],
            ["--set eval.scales=[1.0]", '--set runtime.amp="auto"', "--set eval.size=[192,96]"],
        ),
        ("prediction", CPU, ["eval.size=[256, 128]"], ["--set eval.size=[192,96]"]),
        ("prediction", CPU, ["eval.size=[8, 8]"], []),
    ],
)  # fmt: skip
def test_what_saves_is_offered_in_order(
    work: Any, device: torch.device, settings: list[str], expected: list[str]
) -> None:
    recipe = tiny("gta2cs", *settings)
    needed = savings_module.estimate(recipe, device, work, 4)
    found = savings(recipe, device, work, 4, needed)
    assert fields(found) == expected
    for one in found:
        changed = tiny("gta2cs", *settings, *(part.strip() for part in one.settings.split("--set ")[1:]))
        assert one.bytes == savings_module.estimate(changed, device, work, 4) < needed, "ready for a command line"


def test_an_iterations_savings_are_its_estimates() -> None:
    """Uncounted by formula: a warm-up of crops alone is the shortest."""
    settings = ("views.whole=false", "views.crop_size=[64, 64]", ONE)
    recipe = tiny("gta2cs", *settings)
    (one,) = savings(recipe, CPU, "warm-up", 1, estimate_bytes(recipe, CPU, "warm-up"))
    changed = tiny("gta2cs", *settings, "views.crop_size=[48, 48]")
    assert one == Saving("--set views.crop_size=[48,48]", estimate_bytes(changed, CPU, "warm-up"))


def test_an_evaluations_estimate_grows_with_batch_size_and_scales() -> None:
    recipe = tiny("gta2cs", "eval.size=[256, 128]")
    once = estimate_evaluation_bytes(recipe, CPU, 1)
    weights = sum(tensor.nbytes for tensor in build_network(recipe).state_dict().values())
    assert once > weights
    assert estimate_evaluation_bytes(recipe, CPU, 4) - weights == pytest.approx(4 * (once - weights), rel=0.1)
    scaled = tiny("gta2cs", "eval.size=[256, 128]", "eval.scales=[1.0, 2.0]")
    assert estimate_evaluation_bytes(scaled, CPU, 1) > 1.5 * once
