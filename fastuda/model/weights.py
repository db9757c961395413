"""Weights files: read without running any code in them, matched key by key, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from fastuda.errors import FastudaError
from fastuda.files.disk import write_atomic
from fastuda.model.archive import read_archive
from fastuda.model.deeplab import DeepLabV2
from fastuda.model.digest import sealed
from fastuda.model.importers import HEADS, Convention, ImportedWeights, InputConvention, Kind, interpret
from fastuda.model.resnet import first_planes
from fastuda.model.soundness import listed, misfits

__all__ = [
    "Convention",
    "ImportedWeights",
    "InputConvention",
    "Kind",
    "LoadReport",
    "describe",
    "load_into",
    "read_weights",
    "save_weights",
]


def read_weights(path: Path, convention: Convention = "auto") -> ImportedWeights:
    """Read a `.safetensors` or `torch.save` file and recognise whose weights it holds.

    Known are torchvision state dicts, DeepLab initialisations (`Scale.` keys), checkpoints of the
    AdaptSegNet, DSP and EHTDI lineage (protocol rows 17, 18, 20) and fastuda's own, also inside the usual wrappers
    (`wrappers`). `convention` matters for torchvision's
    keys alone, which Caffe's ResNets bear too: "caffe" stands for BGR 0-255 input, stride on the first 1×1
    and a max-pool without padding.

    Raises FastudaError when the file is missing, damaged, holds code (which is never run), is of no known kind, or
    when a key, a shape or a value is none of the network it describes.
    """
    content, metadata = read_archive(path)
    try:
        return interpret(content, metadata, convention)
    except FastudaError as error:
        raise FastudaError(f"{path}: {error}") from error


@dataclass(frozen=True)
class LoadReport:
    """What `load_into` did."""

    matched: int
    """Tensors copied into the model."""
    dropped: dict[str, str]
    """Keys of the file that were left out, and why."""
    fresh: tuple[str, ...]
    """Keys of the heads that kept their random start, since this kind of file has none."""
    differences: tuple[str, ...]
    """Conventions in which the pretrained backbone's network and the model differ, for the log."""


def load_into(model: DeepLabV2, imported: ImportedWeights, *, path: Path) -> LoadReport:
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


def _check_network(model: DeepLabV2, imported: ImportedWeights, path: Path) -> None:
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


def _differences(model: DeepLabV2, imported: ImportedWeights) -> list[str]:
    differences = []
    # Basic blocks have no choice of where to stride.
    if imported.stride_on != model.stride_on and model.depth != 18:
        differences.append(f"model.stride_on is {model.stride_on}, the file's network has {imported.stride_on}")
    if imported.pool_padding != model.pool_padding:
        differences.append(
            f"model.pool_padding is {model.pool_padding}, the file's network has {imported.pool_padding}"
        )
    return differences


def _advice(model: DeepLabV2, imported: ImportedWeights) -> str:
    brings = any(key.startswith("auxiliary_head.") for key in imported.state)
    if imported.has_heads and brings != (model.auxiliary_head is not None):
        return f" (--set model.auxiliary={json.dumps(brings)} would fit the file's heads)"
    return ""


def describe(model: DeepLabV2, input: InputConvention) -> dict[str, str]:
    """Metadata for `save_weights` from which `read_weights` knows the network again."""
    network = {
        "input": input,
        "stride_on": model.stride_on,
        "pool_padding": model.pool_padding,
        "aspp": model.aspp,
    }
    return {"model": json.dumps(network)}


def save_weights(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors, text metadata and their checksum (`digest.sealed`) as safetensors.

    The file is whole and durable, or as it was and FastudaError is raised.

    `state` may lie on any device in any memory format. Include `describe(model, input)` in
    `metadata` for a file that `read_weights` is to read.
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    write_atomic(path, save(tensors, sealed(tensors, metadata)), durable=True)
