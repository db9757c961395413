"""From a recipe to a network with its weights in place, with the conventions that those weights bring along."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from fastuda.errors import FastudaError
from fastuda.files.lock import Look
from fastuda.files.paths import is_folder, user_path
from fastuda.model.download import fetch
from fastuda.model.family import ImportedWeights, LoadReport, OnHub, Packaged, family_of
from fastuda.model.hub import HUB, fetch_from_hub, in_folder
from fastuda.model.packaged import find_packaged
from fastuda.model.segmenter import Segmenter
from fastuda.model.weights import read_family_weights
from fastuda.printable import on_one_line
from fastuda.recipe import Model, Recipe

log = logging.getLogger(__name__)


def build_model(
    recipe: Recipe, cache: Path, init: Path | None = None, look: Look | None = None
) -> tuple[Segmenter, Recipe]:
    """The network on the CPU, and the recipe with the weights' own conventions written in.

    Weights come from `init` (a whole network: `--init`) or else from `model.weights`: what the family knows by a
    word (downloaded once into `cache`, or found in an installed package), a URL, `hub:ORG/NAME`, a file, a folder of
    Hugging Face's, or `random`. Which of a file's conventions hold against the recipe is the family's to say
    (`Family.adopt`).

    Raises FastudaError when a file cannot be had, read or matched. `look` is `fetch`'s.
    """
    torch.manual_seed(recipe.seed)
    if init is None and recipe.model.weights == "random":
        log.warning("model.weights = random: training from scratch; pretrained weights are worth many mIoU")
        return build_network(recipe), recipe
    path = init or _start(recipe.model, cache, look)
    family, imported = read_family_weights(path, recipe.model)
    if init is not None and not imported.has_heads:
        raise FastudaError(
            f"{path}: --init takes a whole trained network, and this file is a backbone without a classifier; "
            f"use --set model.weights={path}"
        )
    settings = _adopt(recipe.model, imported, path)
    recipe = recipe.model_copy(update={"model": settings})
    _check_room(recipe, path)
    model = build_network(recipe)
    report = family.load(model, imported, path)
    _tell(path, report, imported)
    for difference in report.differences:
        log.info("%s: %s", path.name, difference)
    return model, recipe


def _check_room(recipe: Recipe, path: Path) -> None:
    """FastudaError where the network as the file has it does not take the recipe's images."""
    try:
        recipe.check_room()
    except ValueError as error:
        raise FastudaError(f"{path}: the recipe does not fit the network as this file has it: {error}") from error


def _tell(path: Path, report: LoadReport, imported: ImportedWeights) -> None:
    """Say what of a file was taken, and what was not, a line a reason."""
    log.info("%s: %d tensors loaded (%s)", path.name, report.matched, imported.origin)
    by_reason: dict[str, list[str]] = {}
    for key, reason in report.dropped.items():
        by_reason.setdefault(reason, []).append(key)
    for reason, keys in by_reason.items():
        more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
        log.info("%s: %s%s left out: %s", path.name, ", ".join(keys[:3]), more, reason)


def build_network(recipe: Recipe) -> Segmenter:
    """The recipe's network with random weights, on the CPU."""
    return family_of(recipe.model.kind).build(recipe.model, len(recipe.classes.build()))


def _start(settings: Model, cache: Path, look: Look | None) -> Path:
    """The file that `model.weights` names: by its URL, by a word of the family's, on a hub, in a folder, or itself."""
    if "://" in settings.weights:
        return fetch(settings.weights, cache / "weights", settings.sha256, look)
    known = family_of(settings.kind).pretrained(settings)
    if known is None and settings.weights.startswith(HUB):
        known = OnHub(settings.weights.removeprefix(HUB))
    if isinstance(known, OnHub):
        return fetch_from_hub(known.repository)
    if isinstance(known, Packaged):
        return find_packaged(known, settings.weights)
    if known is not None:
        return fetch(known.url, cache / "weights", known.sha256, look)
    path = user_path(settings.weights)
    if not path.exists():
        raise FastudaError(
            f'model.weights = "{on_one_line(settings.weights, 200)}": no such file, and {settings.kind} has no '
            'published weights of that name; name a file or a URL, or say "random"'
        )
    return in_folder(path) if is_folder(path) else path


def _adopt(settings: Model, imported: ImportedWeights, path: Path) -> Model:
    """The settings with the file's own conventions where they must hold; says which the recipe had otherwise."""
    adopted = family_of(settings.kind).adopt(settings, imported)
    for name in type(settings).set_by_weights:
        own, asked = getattr(adopted, name), getattr(settings, name)
        if own != asked:
            log.info("%s sets model.%s = %s (the recipe said %s)", path.name, name, own, asked)
    return adopted


def read_model(path: Path, device: torch.device) -> tuple[Segmenter, ImportedWeights]:
    """A whole trained network from a file, in eval mode on `device`, built as the file says.

    Raises FastudaError when the file has no classifier or cannot be read.
    """
    family, imported = read_family_weights(path)
    try:
        settings = family.settings_of(imported)
    except FastudaError as error:
        raise FastudaError(f"{path}: {error}") from error
    assert imported.num_classes is not None
    model = family.build(settings, imported.num_classes)
    report = family.load(model, imported, path)
    if imported.origin != "fastuda":
        _tell(path, report, imported)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval(), imported
