"""Weights files: read without running any code in them, matched key by key, written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import secrets
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from fastuda.errors import FastudaError
from fastuda.model.deeplab import DeepLabV2
from fastuda.model.importers import HEADS, Convention, ImportedWeights, InputConvention, Kind, interpret
from fastuda.model.resnet import first_planes

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

# Released checkpoints keep their best mIoU as a NumPy number: plain data, under the old module name too.
_numpy_scalar: Any = np.float64(0).__reduce__()[0]
_NUMPY_SCALARS: list[Any] = [
    _numpy_scalar,
    (_numpy_scalar, "numpy.core.multiarray.scalar"),
    np.dtype,
    np.dtypes.Float64DType,
    np.dtypes.Float32DType,
    np.dtypes.Int64DType,
]


def read_weights(path: Path, convention: Convention = "auto") -> ImportedWeights:
    """Read a `.safetensors` or `torch.save` file and recognise whose weights it holds.

    Known are torchvision state dicts, DeepLab initialisations (`Scale.` keys), checkpoints of the
    AdaptSegNet, DSP and EHTDI lineage (protocol rows 17, 18, 20) and fastuda's own, also inside the usual wrappers
    (`wrappers`). `convention` matters for torchvision's
    keys alone, which Caffe's ResNets bear too: "caffe" stands for BGR 0-255 input, stride on the first 1×1
    and a max-pool without padding.

    Raises FastudaError when the file is missing, damaged, holds code (which is never run) or
    is of no known kind.
    """
    content, metadata = _read_file(path)
    try:
        return interpret(content, metadata, convention)
    except FastudaError as error:
        raise FastudaError(f"{path}: {error}") from error


def _read_file(path: Path) -> tuple[Mapping[str, object], dict[str, str]]:
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise FastudaError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        # A safetensors file is a length of eight bytes, then JSON.
        if path.suffix == ".safetensors" or start[8:] == b"{":
            with safe_open(path, "pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
        with warnings.catch_warnings(), torch.serialization.safe_globals(_NUMPY_SCALARS):
            # torch.load remarks on pickle protocols; whether it could read the file is all that matters.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle or archive can raise anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if isinstance(error, pickle.UnpicklingError):
            # PyTorch's own text advises how to run the code after all.
            refused = re.search(r"GLOBAL (\S+)", str(error))
            reason = refused.group(1) if refused else "an unknown instruction"
            if start.startswith((b"PK", b"\x80")):
                raise FastudaError(
                    f"{path}: it holds code or Python objects ({reason}), and none of it was run; only tensors, "
                    "numbers and text are read. Ask for the plain state dict or a .safetensors file"
                ) from error
        raise FastudaError(
            f"{path}: no readable weights ({reason[:200]}); the file is damaged, cut short "
            "or something else than a .safetensors or torch.save file"
        ) from error
    if not isinstance(content, Mapping):
        raise FastudaError(f"{path}: it holds a {type(content).__name__}, not a state dict")
    return content, {}


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
    wanted = model.state_dict()
    fresh = () if imported.has_heads else tuple(key for key in wanted if key.startswith(HEADS))
    # A count that no computation of ours uses, and that old files lack.
    optional = {key for key in wanted if key.endswith(".num_batches_tracked")}
    problems = [f"{key} is missing" for key in wanted if key not in {*imported.state, *optional, *fresh}]
    for key, value in imported.state.items():
        if key not in wanted:
            problems.append(f"{key} has no place in the model")
        elif value.shape != wanted[key].shape:
            problems.append(f"{key} is {_size(value)}, not {_size(wanted[key])}")
    broken = [key for key, value in imported.state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise FastudaError(
            f"{path}: {len(broken)} tensors hold NaN or infinity ({', '.join(broken[:3])} …); it is damaged"
        )
    if problems:
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise FastudaError(
            f"{path}: {len(problems)} keys do not fit the model{_advice(model, imported)}\n  "
            + "\n  ".join(problems[:10])
            + more
        )
    model.load_state_dict(imported.state, strict=False)
    return LoadReport(len(imported.state), imported.dropped, fresh, tuple(_differences(model, imported)))


def _size(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"


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
    """Write tensors and text metadata as safetensors: the whole file appears at once, or FastudaError is raised.

    `state` may lie on any device in any memory format. Include `describe(model, input)` in
    `metadata` for a file that `read_weights` is to read.
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with partial.open("xb") as file:
            file.write(save(tensors, dict(metadata)))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise FastudaError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
