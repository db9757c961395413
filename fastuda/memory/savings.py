"""What would need less memory: the fields of a recipe to lower, each with the estimate that it would give."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import ValidationError

from fastuda.memory.estimate import TrainingWork, estimate_bytes, estimate_evaluation_bytes
from fastuda.recipe import Recipe

Work = TrainingWork | Literal["evaluation", "prediction"]
"""An iteration of either stage, or the network's answer to a batch of evaluation images or to an image of a user."""
TRAINING = ("adaptation", "warm-up")
MOST = 3
"""Ways that are offered."""
_WORTH = 0.98
"""Of the estimate: what leaves more than this is no way to save."""
_SHRINK, _MULTIPLE = 0.75, 8
"""A smaller size has sides of three quarters, in whole eights: a little more than half of the pixels."""
_FAR_LARGER = 4
"""Times the other views' pixels that a view has to have to be the peak though no gradients pass through it."""

Changes = dict[str, Any]
"""New values by a field's full name."""


@dataclass(frozen=True)
class Saving:
    """One way to need less."""

    settings: str
    """Ready for a command line: `--set train.batch_size=1`."""
    bytes: int
    """The estimate with it."""


def estimate(recipe: Recipe, device: torch.device, work: Work, batch_size: int) -> int:
    """Peak bytes of `work`; `batch_size` is an evaluation's."""
    if work == "evaluation" or work == "prediction":
        return estimate_evaluation_bytes(recipe, device, batch_size)
    return estimate_bytes(recipe, device, work)


def savings(recipe: Recipe, device: torch.device, work: Work, batch_size: int, needed: int) -> list[Saving]:
    """At most three ways to need less than `needed` bytes, what saves most first.

    Where fewer fields than that save anything by themselves, the last way is all of them together, or, where none does,
    all sizes at once: the peak may lie in two passes that are as large as each other.
    """
    candidates = _training(recipe, device, work, needed) if work in TRAINING else _evaluation(recipe, device)
    tried: list[tuple[Changes, int]] = []
    for changes in candidates:
        changed = _changed(recipe, changes)
        if changed is not None:
            tried.append((changes, estimate(changed, device, work, batch_size)))
    useful = sorted((one for one in tried if one[1] < _WORTH * needed), key=lambda one: one[1])[:MOST]
    found = [Saving(_settings(changes), size) for changes, size in useful]
    alone = useful or tried
    if len(found) < MOST and len(alone) > 1:
        together = {name: value for changes, _ in alone for name, value in changes.items()}
        changed = _changed(recipe, together)
        if changed is not None:
            size = estimate(changed, device, work, batch_size)
            if size < _WORTH * min([needed, *(one.bytes for one in found)]):
                found.append(Saving(_settings(together), size))
    return found


def _training(recipe: Recipe, device: torch.device, work: Work, needed: int) -> list[Changes]:
    """Fields that an iteration's peak may depend on."""
    views, batch = recipe.views, recipe.train.batch_size
    found: list[Changes] = [{"train.batch_size": batch // 2}] if batch > 1 else []
    if device.type == "cuda" and recipe.runtime.amp == "none":
        found.append({"runtime.amp": "auto"})
    if work == "adaptation" or not views.whole:
        found += _smaller("views.crop_size", views.crop_size)
    if not views.whole:
        return found
    crop, source, target = (width * height for width, height in (views.crop_size, views.source_size, views.target_size))
    # An adaptation begins with what is a warm-up's whole iteration. Where that is not the peak, its view is not either.
    if work == "warm-up" or estimate_bytes(recipe, device, "warm-up") >= _WORTH * needed:
        found += _smaller("views.source_size", views.source_size)
        if crop < source and work == "adaptation":
            found.append({"views.whole": False})
    if work == "adaptation" and target > _FAR_LARGER * max(crop, source):
        found += _smaller("views.target_size", views.target_size)
    return found


def _evaluation(recipe: Recipe, device: torch.device) -> list[Changes]:
    """Fields that an evaluation's peak may depend on."""
    found = _smaller("eval.size", recipe.eval.size)
    if recipe.eval.scales != (1.0,):
        found.append({"eval.scales": [1.0]})
    if recipe.eval.flip:
        found.append({"eval.flip": False})
    if device.type == "cuda" and recipe.runtime.amp == "none":
        found.append({"runtime.amp": "auto"})
    return found


def _smaller(name: str, size: tuple[int, int]) -> list[Changes]:
    smaller = [int(_SHRINK * side) // _MULTIPLE * _MULTIPLE for side in size]
    return [{name: smaller}] if min(smaller) > 0 else []


def _changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe | None:
    """The recipe with other values; None where that is none."""
    content = recipe.model_dump(by_alias=True)
    for name, value in changes.items():
        section, field = name.split(".")
        content[section][field] = value
    try:
        return Recipe.model_validate(content)
    except ValidationError:
        return None


def _settings(changes: Changes) -> str:
    return " ".join(f"--set {name}={json.dumps(value, separators=(',', ':'))}" for name, value in changes.items())
