"""The names that Facebook Research's own files give the tensors of a Vision Transformer, brought under fastuda's."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_QKV = re.compile(r"blocks\.(\d{1,3})\.attn\.qkv\.(weight|bias)")
_BLOCK = re.compile(r"blocks\.(\d{1,3})\.(.+)\.(weight|bias|gamma)")
_MODULES = {"attn.proj": "attention.o_proj", "ls1": "layer_scale1", "ls2": "layer_scale2"}
_VALUES = {"gamma": "lambda1"}


def with_split_attention(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same with the one matrix of queries, keys and values of each block as three, under fastuda's names."""
    found = {}
    for key, value in tensors.items():
        match = _QKV.fullmatch(key)
        if match is None or value.ndim == 0 or value.shape[0] % 3:
            found[key] = value
            continue
        for name, part in zip("qkv", value.chunk(3), strict=True):
            found[f"layers.{match[1]}.attention.{name}_proj.{match[2]}"] = part
    return found


def of_block(key: str, mlp: Mapping[str, str]) -> str:
    """fastuda's key for one of a block, of whose modules `mlp` renames two; any other stays as it is."""
    match = _BLOCK.fullmatch(key)
    if match is None:
        return key
    module = mlp.get(match[2], _MODULES.get(match[2], match[2]))
    return f"layers.{match[1]}.{module}.{_VALUES.get(match[3], match[3])}"


def variant_shapes(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Width and depth that a Vision Transformer's tensors tell under fastuda's names; 0 for what they do not."""
    norm = state.get("backbone.norm.weight")
    blocks = {match[1] for match in (re.match(r"backbone\.layers\.(\d{1,3})\.", key) for key in state) if match}
    return (0 if norm is None else norm.numel()), len(blocks)
