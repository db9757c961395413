"""A DeepLab-v2 filled with imported weights, or why they are another network's."""

from __future__ import annotations

import json
from pathlib import Path

from fastuda.errors import FastudaError
from fastuda.model.deeplab.importers import HEADS, DeepLabWeights
from fastuda.model.deeplab.network import DeepLabV2
from fastuda.model.deeplab.resnet import first_planes
from fastuda.model.family import LoadReport
from fastuda.model.soundness import listed, misfits


def load_into(model: DeepLabV2, imported: DeepLabWeights, *, path: Path) -> LoadReport:
    """Copy imported weights into the model, in place: every key of the backbone, and the heads if there are any.

    `path` is the file's, for messages. Raises FastudaError, the model untouched, when depth, width,
    number of classes or dilations differ, when any key is missing, unknown or of another shape, or
    when a trained network (not just a backbone) strides or pools in another place than the model.
    """
    _check_network(model, imported, path)
    wanted = {key: value.shape for key, value in model.state_dict().items()}
    fresh = () if imported.has_heads else tuple(key for key in wanted if key.startswith(HEADS))
    problems = misfits(imported.state, {key: shape for key, shape in wanted.items() if key not in fresh})
    if problems:
        raise FastudaError(
            f"{path}: {len(problems)} keys do not fit the model{_advice(model, imported)}: {listed(problems)}"
        )
    model.load_state_dict(imported.state, strict=False)
    return LoadReport(len(imported.state), imported.dropped, fresh, tuple(_differences(model, imported)))


def _check_network(model: DeepLabV2, imported: DeepLabWeights, path: Path) -> None:
    if (imported.depth, first_planes(imported.width)) != (model.depth, first_planes(model.width)):
        raise FastudaError(
            f"{path}: it holds ResNet-{imported.depth} at width {imported.width:g}, the recipe wants "
            f"ResNet-{model.depth} at width {model.width:g}: "
            f"--set model.depth={imported.depth} --set model.width={imported.width:g}"
        )
    if imported.num_classes not in (None, model.num_classes):
        raise FastudaError(
            f"{path}: its classifier knows {imported.num_classes} classes, the recipe {model.num_classes}: "
            "choose the classes it was trained on"
        )
    if imported.aspp not in (None, model.aspp):
        raise FastudaError(
            f"{path}: its classifier has the dilations {imported.aspp}, the recipe's has {model.aspp}: "
            f"--set model.aspp={json.dumps(imported.aspp, separators=(',', ':'))}"
        )
    if imported.has_heads and (differences := _differences(model, imported)):
        raise FastudaError(f"{path}: it was trained as another network: {'; '.join(differences)}")


def _differences(model: DeepLabV2, imported: DeepLabWeights) -> list[str]:
    differences = []
    # Basic blocks have no choice of where to stride.
    if imported.stride_on != model.stride_on and model.depth != 18:
        differences.append(f"model.stride_on is {model.stride_on}, the file's network has {imported.stride_on}")
    if imported.pool_padding != model.pool_padding:
        differences.append(
            f"model.pool_padding is {model.pool_padding}, the file's network has {imported.pool_padding}"
        )
    return differences


def _advice(model: DeepLabV2, imported: DeepLabWeights) -> str:
    brings = any(key.startswith("auxiliary_head.") for key in imported.state)
    if imported.has_heads and brings != (model.auxiliary_head is not None):
        return f" (--set model.auxiliary={json.dumps(brings)} would fit the file's heads)"
    return ""
