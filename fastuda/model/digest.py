"""The checksum that fastuda's files carry in their header, over every tensor and all other text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, uint8

from fastuda.errors import FastudaError

MODEL_FORMAT = "fastuda-model-2"
"""Metadata `format` of a model that has to carry a checksum."""

_SUM, _SEAL = "sha256", "sealed"
_CHUNK_BYTES = 64 << 20


def digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256, as hex digits, of all metadata but `sha256` and of every tensor's name, dtype, shape and values.

    The order of either mapping makes no difference. Tensors lie on the CPU, of any dtype; those that are contiguous
    are not copied.
    """
    sha256 = hashlib.sha256()
    _add_text(sha256, sorted((key, value) for key, value in metadata.items() if key != _SUM))
    for name, tensor in sorted(tensors.items()):
        _add_text(sha256, [name, str(tensor.dtype), list(tensor.shape)])
        values = tensor.detach().contiguous().flatten().view(uint8).numpy().data
        # Between chunks Ctrl-C is heard.
        for start in range(0, len(values), _CHUNK_BYTES):
            sha256.update(values[start : start + _CHUNK_BYTES])
    return sha256.hexdigest()


def sealed(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """The metadata with `sealed` and `sha256` added, or renewed, for exactly these tensors."""
    marked = {**metadata, _SEAL: "1"}
    return {**marked, _SUM: digest(tensors, marked)}


def verify(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], path: Path) -> None:
    """Raise FastudaError when a file, as read, is not what was written.

    A file without `sealed` and `sha256` is from before there were checksums and passes, unless its `format` requires
    one. `path` is the file's, for messages.
    """
    if metadata.get("format") != MODEL_FORMAT and _SUM not in metadata and _SEAL not in metadata:
        return
    if _SUM not in metadata or metadata.get(_SEAL) != "1":
        lost = _SEAL if _SUM in metadata else _SUM
        raise FastudaError(
            f"{path}: damaged: its content is not what was written (its header has lost `{lost}`); copy it again"
        )
    found = digest(tensors, metadata)
    if found != metadata[_SUM]:
        raise FastudaError(
            f"{path}: damaged: its content is not what was written "
            f"(SHA-256 {found[:12]}…, its header says {ascii(metadata[_SUM])[1:13]}…); copy it again"
        )


def _add_text(sha256: hashlib._Hash, value: object) -> None:
    """Add text with its length before it, so that no two files make the same bytes."""
    text = json.dumps(value).encode("ascii")
    sha256.update(len(text).to_bytes(8, "little"))
    sha256.update(text)
