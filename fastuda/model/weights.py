"""Weights files: read without running any code in them, matched key by key, written whole or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from fastuda.errors import FastudaError
from fastuda.files.disk import write_atomic
from fastuda.model.archive import read_archive
from fastuda.model.digest import sealed
from fastuda.model.family import Family, ImportedWeights, family_of_file
from fastuda.model.wrappers import unwrap
from fastuda.recipe.model import Model


def read_weights(path: Path, settings: Model | None = None) -> ImportedWeights:
    """Read a `.safetensors` or `torch.save` file and recognise whose weights it holds; see `read_family_weights`."""
    return read_family_weights(path, settings)[1]


def read_family_weights(path: Path, settings: Model | None = None) -> tuple[Family[Model], ImportedWeights]:
    """The family of networks that a file's weights are of, and the weights under the names of its network.

    Known are fastuda's own files and what each family recognises beside them, also inside the usual wrappers
    (`wrappers`). `settings` are those of the recipe's network, where there is one: they say what keys cannot tell.

    Raises FastudaError when the file is missing, damaged, holds code (which is never run), is of no known kind, or
    when a key, a shape or a value is none of the network it describes.
    """
    content, metadata = read_archive(path)
    try:
        family = family_of_file(unwrap(content)[0].keys(), metadata, settings)
        return family, family.interpret(content, metadata, settings)
    except FastudaError as error:
        raise FastudaError(f"{path}: {error}") from error


def save_weights(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors, text metadata and their checksum (`digest.sealed`) as safetensors.

    The file is whole and durable, or as it was and FastudaError is raised.

    `state` may lie on any device in any memory format; tied weights are written under each of their names. Include
    `described(model)` in `metadata` for a file that `read_weights` is to read.
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    times = Counter(tensor.data_ptr() for tensor in tensors.values())
    tensors = {key: tensor.clone() if times[tensor.data_ptr()] > 1 else tensor for key, tensor in tensors.items()}
    write_atomic(path, save(tensors, sealed(tensors, metadata)), durable=True)
