"""The recipes of today's networks and trainings: the published constants, and what they need."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from recipe_fields import fields
from tiny import RUN
from transformers_small import run_settings
from whole_runs import TINY, run, run_killed, saved_state

from fastuda.memory.estimate import estimate_bytes
from fastuda.recipe.file import load_recipe, preset_names
from fastuda.recipe.term import read_term
from fastuda_bench import needs as needs_module
from fastuda_bench.needs import needs, table_of
from fastuda_bench.work import iteration_work

DAFORMER = {
    "model.kind": "segformer",
    "model.variant": "mit-b5",
    "model.head": "daformer",
    "model.head_channels": 256,
    "model.stochastic_depth": 0.1,
    "warmup.iterations": 0,
    "train.iterations": 40_000,
    "train.batch_size": 2,
    "train.optimizer.kind": "adamw",
    "train.optimizer.lr_backbone": 6e-5,
    "train.optimizer.lr_head": 6e-4,
    "train.optimizer.weight_decay": 0.01,
    "train.optimizer.ramp_up": 1500,
    "train.optimizer.poly_power": 1.0,
    "views.source_size": [1280, 720],
    "views.target_size": [1024, 512],
    "views.crop": "cut",
    "views.crop_size": [512, 512],
    "views.whole": False,
    "views.blur": 0.0,
    "method.teacher": "ema",
    "method.ema_decay": 0.999,
    "method.ema_rises": True,
    "method.mixed_weight": 1.0,
    "mix.pseudo_labels": "all",
    "quality.tau": 0.968,
    "quality.per": "batch",
    "quality.top": 15,
    "quality.bottom": 120,
    "sampling.rare_classes": True,
    "sampling.temperature": 0.01,
    "sampling.min_crop_pixels": 1500,
    "terms.feature_distance.weight": 0.005,
    "terms.feature_distance.form": "euclidean",
    "eval.size": [1024, 512],
}
"""configs/daformer/gta2cs_uda_warm_fdthings_rcs_croppl_a999_daformer_mitb5_s0.py, in fastuda's words."""
HRDA = {
    "model.detail": 512,
    "model.detail_weight": 0.1,
    "views.source_size": [2560, 1440],
    "views.target_size": [2048, 1024],
    "views.crop_size": [1024, 1024],
    "quality.top": 30,
    "quality.bottom": 240,
    "quality.sides": 30,
    "sampling.min_pixels": round(3000 * 2560 * 1440 / (1914 * 1052)),
    "sampling.min_crop_pixels": 6000,
    "eval.size": [2048, 1024],
    "eval.window": [1024, 1024],
    "eval.window_step": [512, 512],
}
"""configs/hrda/gtaHR2csHR_hrda.py likewise, where it differs; 3,000 pixels of a label of GTA5's own size."""
TODAY = [
    *("cs2acdc", "cs2bdd", "cs2darkzurich", "gta2cs-dacs-mitb5", "gta2cs-daformer", "gta2cs-mic"),
    *("gta2cs-hrda", "gta2cs-mic-hrda", "gta2cs-mic-r101", "gta2cs-vfm"),
]


def test_daformers_recipe_has_its_constants() -> None:
    found = fields(load_recipe("gta2cs-daformer"))
    assert {name: found[name] for name in DAFORMER} == DAFORMER
    # 3,000 pixels of GTA5's 1914×1052, at the size of the packed labels.
    assert found["sampling.min_pixels"] == round(3000 * 1280 * 720 / (1914 * 1052))


def test_mics_differs_from_it_by_one_term() -> None:
    daformer, mic = (load_recipe(f"gta2cs-{name}") for name in ("daformer", "mic"))
    assert mic.terms["masked"] == read_term(("masked", {"ratio": 0.7, "block": 32, "weight": 1.0}))
    assert set(mic.terms) - set(daformer.terms) == {"masked"}
    assert mic.model_copy(update={"terms": daformer.terms, "description": daformer.description}) == daformer


def test_hrdas_recipe_differs_from_daformers_by_its_scales_and_sizes() -> None:
    daformer, found = (fields(load_recipe(f"gta2cs-{name}")) for name in ("daformer", "hrda"))
    assert {name: found[name] for name in HRDA} == HRDA
    changed = {name for name, value in found.items() if value != daformer[name]}
    assert changed == (HRDA.keys() - {"model.detail_weight"}) | {"description"}


def test_mics_on_two_scales_differs_from_hrdas_by_one_term() -> None:
    hrda, mic = load_recipe("gta2cs-hrda"), load_recipe("gta2cs-mic-hrda")
    assert mic.terms["masked"] == read_term(("masked", {"ratio": 0.7, "block": 64, "weight": 1.0}))
    assert mic.model_copy(update={"terms": hrda.terms, "description": hrda.description}) == hrda
    assert "75.9 mIoU published, of seeds with 75.6, 76.0 and 75.9" in mic.description


def test_the_foundation_models_recipe_has_its_constants() -> None:
    recipe = load_recipe("gta2cs-vfm")
    optimizer = recipe.train.optimizer
    assert (optimizer.lr_backbone, optimizer.layer_decay, optimizer.ramp_up) == (1e-5, 0.9, 1500)
    assert (recipe.quality.top, recipe.quality.bottom, recipe.quality.sides) == (30, 240, 30)
    for name in ("feature_distance", "target_feature_distance"):
        term = recipe.terms[name]
        assert (term.weight, term.model_dump()["form"]) == (0.1, "smooth-cosine")
    assert recipe.terms["feature_distance"].model_dump()["classes"] == ()
    assert recipe.eval.window == recipe.views.crop_size
    assert recipe.terms["masked"].model_dump()["block"] == 14
    control = load_recipe("gta2cs-vfm+control")
    assert (control.parts, control.warmup.iterations, control.train.iterations) == ([], 0, 40_000)


@pytest.mark.parametrize("name", TODAY)
def test_every_one_says_that_nothing_was_measured_here(name: str) -> None:
    assert name in preset_names()
    assert "not measured here" in load_recipe(name).description
    page = Path(__file__).resolve().parents[1] / "docs" / "today.md"
    assert f"| `{name}` |" in page.read_text()


@pytest.mark.usefixtures("shallow_transformers")
def test_the_whole_training_of_mic_on_a_transformer_is_killed_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = [*run_settings("segformer"), *TINY[len(RUN) :], "model.head=daformer", "model.head_channels=8"]
    small += ["views.crop=cut", "views.whole=false", "sampling.min_pixels=20", "sampling.min_crop_pixels=10"]
    small += ["quality.tau=0.2", "terms.masked.block=8", "terms.feature_distance.classes=[]"]
    recipe = load_recipe("demo", [*small, f"data.cache={tmp_path / 'cache'}"], layers=[(["mic"], ())])
    run(recipe, tmp_path / "whole")
    run_killed(recipe, tmp_path / "killed", monkeypatch)
    expected, found = saved_state(tmp_path / "whole"), saved_state(tmp_path / "killed")
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    log = (tmp_path / "whole" / "log.jsonl").read_text()
    assert all(f'"{name}"' in log for name in ("mix", "masked", "feature_distance"))


def test_what_a_recipe_needs_is_counted(monkeypatch: pytest.MonkeyPatch, tiny_recipe: object) -> None:
    monkeypatch.setattr(needs_module, "CARDS_GB", (2, 3, 1000))
    recipe = tiny_recipe("runtime.amp=none", "views.whole=false", "views.crop_size=[128, 128]")  # type: ignore[operator]
    row = needs(recipe, "tiny")
    assert row["flops"] == iteration_work(recipe, torch.device("cpu")).flops
    assert row["bytes"] == pytest.approx(estimate_bytes(recipe, torch.device("cpu")), rel=0.1)
    assert row["gib"] == pytest.approx(2 + 1.05 * row["bytes"] / 2**30, abs=0.01)
    assert row["parameters"] - row["trained"] == 2 * 64  # the stem's norm
    assert row["fits"] == {"2": None, "3": [], "1000": []}  # a context alone takes two
    assert "as it is" in str(list(table_of([row]).columns[-1].cells))


def test_smaller_settings_are_tried_in_order_and_patches_stay_whole() -> None:
    recipe = load_recipe("gta2cs-vfm", ["model.weights=random"])
    changes = list(needs_module._smaller(recipe))
    assert [settings for settings, _ in changes[:2]] == [[], ["train.batch_size=1"]]
    sides = [smaller.views.crop_size[0] for _, smaller in changes[2:]]
    assert sides == sorted(sides, reverse=True)
    assert len(sides) == len(set(sides)) == 8
    assert all(side % 14 == 0 for side in sides)
    assert all(smaller.train.batch_size == 1 for _, smaller in changes[1:])
