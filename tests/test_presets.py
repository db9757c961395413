"""Presets: the protocol's defaults by number, and what each preset changes."""

from __future__ import annotations

from typing import Any

import pytest
from recipe_fields import fields

from fastuda.classes import CITYSCAPES_13, CITYSCAPES_16, CITYSCAPES_19
from fastuda.recipe.file import load_recipe, preset_names, preset_text

# The rows of the protocol's table, as `gta2cs` must have them.
PROTOCOL: list[tuple[int, dict[str, Any]]] = [
    (1, {"views.source_size": [1280, 720], "train.batch_size": 2, "views.flip": 0.5}),
    (1, {"views.blur": 0.5, "views.blur_radius": 1.0, "views.source_jitter": 0.0, "views.whole": True}),
    (2, {"views.target_size": [1280, 640]}),
    (3, {"method.teacher": "student"}),
    (4, {"method.ema_decay": 0.999}),
    (5, {"views.crop_size": [512, 512], "views.crop_scale": [0.2, 1.0], "views.crop_ratio": [3 / 4, 4 / 3]}),
    (5, {"views.antialias": True}),
    (6, {"jitter.probability": 0.8, "jitter.brightness": 0.2, "jitter.contrast": 0.2, "jitter.hue": 20}),
    (6, {"jitter.saturation": 30, "jitter.value": 20, "jitter.grey": 0.2, "jitter.blur": 0.5, "jitter.blur_kernel": 5}),
    (7, {"mix.enabled": True, "mix.fraction": 0.5, "mix.min_class": 0, "mix.off_by_one": False}),
    (9, {"htcm.enabled": True, "htcm.from": "target"}),
    (10, {"htcm.samples": "all"}),
    (11, {"method.tau": 0.95}),
    (12, {"contrast.pixel": True, "contrast.prototype": True, "contrast.on": "st"}),
    (14, {"contrast.prototype_samples": "all", "contrast.prototype_scale": 7}),
    (15, {"method.mixed_weight": 0.1, "method.contrast_weight": 0.01, "contrast.pixel_scale": 20}),
    (16, {"model.auxiliary": True, "auxiliary.weight": 0.1, "auxiliary.labels": "pasted"}),
    (17, {"model.depth": 101, "model.width": 1, "model.stride_on": "1x1", "model.pool_padding": 1}),
    (18, {"model.aspp": [6, 12, 18, 24]}),
    (20, {"model.input": "rgb-imagenet", "model.weights": "imagenet"}),
    (21, {"train.iterations": 250_000, "train.evaluate_every": None}),
    (21, {"train.optimizer.lr_backbone": 7.5e-4, "train.optimizer.lr_head": 2.5e-3, "train.optimizer.ramp_up": 0}),
    (21, {"train.optimizer.backbone_updates": "one", "warmup.optimizer.backbone_updates": "one"}),
    (21, {"train.optimizer.momentum": 0.9, "train.optimizer.weight_decay": 5e-4, "train.optimizer.poly_power": 0.9}),
    (22, {"warmup.optimizer.lr_backbone": 7.5e-4, "warmup.optimizer.lr_head": 2.5e-3}),
    (23, {"eval.size": [1280, 640], "eval.protocol": "full", "eval.batch_norm": "running"}),
    (24, {"classes.preset": "cityscapes19", "classes.names": None}),
    (25, {"edge.enabled": False, "edge.paste_weight": 1.0, "edge.htcm_weight": 0.1}),
    (25, {"edge.htcm_auxiliary_weight": 0.01}),
    (25, {"edge.confidence": "htcm", "edge.samples": "all", "edge.all_or_none": False}),
    (27, {"source_mix.enabled": False, "source_mix.opacity": 0.9, "source_mix.weight": 1.0}),
    (27, {"source_mix.long_tail": ["rider", "bus", "train", "motorcycle", "bicycle"]}),
    (26, {"source.layout": "gta5", "source.listing": None, "target.layout": "cityscapes"}),
]  # fmt: skip

FROM_GTA2CS: dict[str, dict[str, Any]] = {
    "gta2cs-released": {
        "mix.min_class": 5,
        "mix.off_by_one": True,
        "htcm.from": "mixed",
        "htcm.samples": "first",
        "contrast.prototype_samples": "first",
        "auxiliary.labels": "prediction",
        "model.aspp": [6, 12],
        "eval.protocol": "released",
        "edge.confidence": "crop",
        "edge.samples": "first",
        "edge.all_or_none": True,
        "views.antialias": False,
        "train.optimizer.backbone_updates": "listed",
        "warmup.optimizer.backbone_updates": "listed",
    },
    "gta2cs-edge": {"edge.enabled": True},
    "gta2cs-fast": {"views.whole": False, "method.teacher": "ema"},
    "syn2cs": {
        "classes.preset": "cityscapes16",
        "source.layout": "synthia",
        "method.contrast_weight": 0.008,
        "eval.subsets": {"13": list(CITYSCAPES_13)},
        "source_mix.opacity": 0.8,
        "source_mix.long_tail": ["rider", "bus", "motorcycle", "bicycle"],
    },
}


@pytest.mark.parametrize(("row", "expected"), PROTOCOL, ids=[f"row{row}-{next(iter(e))}" for row, e in PROTOCOL])
def test_gta2cs_is_the_protocol(row: int, expected: dict[str, Any]) -> None:
    found = fields(load_recipe("gta2cs"))
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("preset", FROM_GTA2CS)
def test_a_preset_changes_these_fields_of_gta2cs_and_no_other(preset: str) -> None:
    base, found = fields(load_recipe("gta2cs")), fields(load_recipe(preset))
    assert {key: found[key] for key in found if found[key] != base[key] and key != "description"} == FROM_GTA2CS[preset]


def test_classes_are_19_for_gta5_and_16_for_synthia() -> None:
    assert load_recipe("gta2cs").classes.build().names == CITYSCAPES_19
    assert load_recipe("syn2cs").classes.build().names == CITYSCAPES_16


def test_the_presets_are_these() -> None:
    assert {"demo", "gta2cs", *FROM_GTA2CS} <= set(preset_names())
    assert preset_names() == sorted(preset_names())


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_says_what_it_is_in_one_line(preset: str) -> None:
    description = load_recipe(preset).description
    assert description
    assert "\n" not in description
    assert f'description = "{description}"' in preset_text(preset)
