"""From a recipe to a network with its weights in place, with the conventions that those weights bring along."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import nn

from fastuda.errors import FastudaError
from fastuda.files.lock import Look
from fastuda.files.paths import user_path
from fastuda.model.deeplab import DeepLabV2
from fastuda.model.download import fetch
from fastuda.model.weights import ImportedWeights, LoadReport, load_into, read_weights
from fastuda.recipe import Model, Recipe

log = logging.getLogger(__name__)


def build_model(
    recipe: Recipe, cache: Path, init: Path | None = None, look: Look | None = None
) -> tuple[DeepLabV2, Recipe]:
    """The network on the CPU, and the recipe with the weights' own conventions written in.

    Weights come from `init` (a whole network: `--init`) or else from `model.weights`: `imagenet`
    (downloaded once into `cache`), a file, or `random`. A file's input convention always holds; its
    dilations and heads hold where it brings heads; its stride and pooling hold unless it is
    torchvision's, whose networks the protocol strides Caffe's way all the same (rows 17, 18, 20).

    Raises FastudaError when a file cannot be had, read or matched. `look` is `fetch`'s.
    """
    torch.manual_seed(recipe.seed)
    if init is None and recipe.model.weights == "random":
        log.warning("model.weights = random: training from scratch; pretrained weights are worth many mIoU")
        return build_network(recipe), recipe
    path = init or _pretrained(recipe.model, cache, look)
    imported = read_weights(path, recipe.model.convention)
    if init is not None and not imported.has_heads:
        raise FastudaError(
            f"{path}: --init takes a whole trained network, and this file is a backbone without a classifier; "
            f"use --set model.weights={path}"
        )
    settings = _adopt(recipe.model, imported, path)
    recipe = recipe.model_copy(update={"model": settings})
    model = build_network(recipe)
    report = load_into(model, imported, path=path)
    _tell(path, report, imported)
    for difference in report.differences:
        log.info("%s: %s", path.name, difference)
    return model, recipe


def _tell(path: Path, report: LoadReport, imported: ImportedWeights) -> None:
    """Say what of a file was taken, and what was not, a line a reason."""
    log.info("%s: %d tensors loaded (%s)", path.name, report.matched, imported.kind)
    by_reason: dict[str, list[str]] = {}
    for key, reason in report.dropped.items():
        by_reason.setdefault(reason, []).append(key)
    for reason, keys in by_reason.items():
        more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
        log.info("%s: %s%s left out: %s", path.name, ", ".join(keys[:3]), more, reason)


def build_network(recipe: Recipe) -> DeepLabV2:
    """The recipe's network with random weights, on the CPU."""
    settings = recipe.model
    network = DeepLabV2(
        len(recipe.classes.build()),
        depth=settings.depth,
        width=settings.width,
        stride_on=settings.stride_on,
        pool_padding=settings.pool_padding,
        aspp=settings.aspp,
        auxiliary=settings.auxiliary,
    )
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = settings.batch_norm_momentum
    return network


def _pretrained(settings: Model, cache: Path, look: Look | None) -> Path:
    if "://" in settings.weights:
        return fetch(settings.weights, cache / "weights", settings.sha256, look)
    if settings.weights != "imagenet":
        return user_path(settings.weights)
    if settings.width != 1:
        raise FastudaError(
            f'model.weights = "imagenet" is published for width 1 only, and model.width is {settings.width:g}: '
            "name a file, or ask for a random start with --set model.weights=random"
        )
    return fetch(f"resnet{settings.depth}", cache / "weights", look=look)


def _adopt(settings: Model, imported: ImportedWeights, path: Path) -> Model:
    """The settings with the file's own conventions where they must hold."""
    adopted: dict[str, object] = {"input": imported.input}
    if imported.kind != "torchvision" or imported.input == "bgr-caffe":
        adopted |= {"stride_on": imported.stride_on, "pool_padding": imported.pool_padding}
    if imported.has_heads:
        adopted["aspp"] = imported.aspp
        adopted["auxiliary"] = any(key.startswith("auxiliary_head.") for key in imported.state)
    for name, value in adopted.items():
        if getattr(settings, name) != value:
            log.info("%s sets model.%s = %s (the recipe said %s)", path.name, name, value, getattr(settings, name))
    return settings.model_copy(update=adopted)


def read_model(path: Path, device: torch.device) -> tuple[DeepLabV2, ImportedWeights]:
    """A whole trained network from a file, in eval mode on `device`, built as the file says.

    Raises FastudaError when the file has no classifier or cannot be read.
    """
    imported = read_weights(path)
    if imported.num_classes is None or imported.aspp is None:
        raise FastudaError(f"{path}: this file is a backbone without a classifier; it cannot predict")
    model = DeepLabV2(
        imported.num_classes,
        depth=imported.depth,
        width=imported.width,
        stride_on=imported.stride_on,
        pool_padding=imported.pool_padding,
        aspp=imported.aspp,
        auxiliary=any(key.startswith("auxiliary_head.") for key in imported.state),
    )
    report = load_into(model, imported, path=path)
    if imported.kind != "fastuda":
        _tell(path, report, imported)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval(), imported
