"""The names that others give the tensors of a Mix Transformer and its heads, brought under fastuda's."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from fastuda.model.transformer.family import ATTENTION

# Of a block, under `stages.I.blocks.J.`: the library's older names and NVlabs' → fastuda's, which are the library's.
_BLOCK = {
    "layer_norm_1": "layernorm_before",
    "layer_norm_2": "layernorm_after",
    "attention.self.query": "attention.q_proj",
    "attention.self.key": "attention.k_proj",
    "attention.self.value": "attention.v_proj",
    "attention.self.sr": "attention.sequence_reduction.sequence_reduction",
    "attention.self.layer_norm": "attention.sequence_reduction.layer_norm",
    "attention.output.dense": "attention.o_proj",
    "mlp.dense1": "mlp.fc1",
    "mlp.dense2": "mlp.fc2",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.q": "attention.q_proj",
    "attn.k": "attention.k_proj",
    "attn.v": "attention.v_proj",
    "attn.sr": "attention.sequence_reduction.sequence_reduction",
    "attn.norm": "attention.sequence_reduction.layer_norm",
    "attn.proj": "attention.o_proj",
}
_EMBEDDING = {"norm": "layer_norm"}
_OLD = re.compile(r"encoder\.(patch_embeddings|block|layer_norm)\.(\d)(?:\.(\d{1,3}))?(?:\.(.+))?\.(weight|bias)")
_NVLABS = re.compile(r"(patch_embed|block|norm)([1-4])(?:\.(\d{1,3}))?(?:\.(.+))?\.(weight|bias)")
_BOTH = ".attn.kv."

# Of a head, whole: mmsegmentation's names (DAFormer's and SegFormer's), then the library's.
_HEADS = (
    (r"embed_layers\.([0-3])\.proj\.(\w+)", r"embed.\1.\2"),
    (r"fuse_layer\.aspp_modules\.0\.(conv|bn)\.(\w+)", r"branches.0.\1.\2"),
    (r"fuse_layer\.aspp_modules\.([1-3])\.(depth|point)wise_conv\.(conv|bn)\.(\w+)", r"branches.\1.\2wise.\3.\4"),
    (r"fuse_layer\.bottleneck\.(conv|bn)\.(\w+)", r"bottleneck.\1.\2"),
    (r"linear_fuse\.(conv|bn)\.(\w+)", r"fuse.\1.\2"),
    (r"(?:linear_c|linear_projections)\.([0-3])\.proj\.(\w+)", r"embed.\1.\2"),
    (r"linear_fuse\.weight", r"fuse.conv.weight"),
    (r"batch_norm\.(\w+)", r"fuse.norm.\1"),
    (r"(?:conv_seg|linear_pred|classifier)\.(\w+)", r"classify.\1"),
)
# Of HRDA's attention between scales, DAFormer's head with one 1×1 convolution in place of those side by side.
_ATTENTION = (
    (r"embed_layers\.([0-3])\.proj\.(\w+)", r"embed.\1.\2"),
    (r"fuse_layer\.conv\.(\w+)", r"fuse.conv.\1"),
    (r"fuse_layer\.bn\.(\w+)", r"fuse.norm.\1"),
    (r"conv_seg\.(\w+)", r"classify.\1"),
)
_COUNTED = re.compile(r"linear_c([1-4])\.proj\.(\w+)")


def of_encoder(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same under fastuda's keys of an encoder; what has none there keeps its own."""
    split: dict[str, Tensor] = {}
    for key, value in tensors.items():
        if _BOTH in key and value.ndim and value.shape[0] % 2 == 0:
            for name, half in zip("kv", value.chunk(2), strict=True):
                split[key.replace(_BOTH, f".attn.{name}.")] = half
        else:
            split[key] = value
    return {_renamed(key): value for key, value in split.items()}


def _renamed(key: str) -> str:
    if key.startswith("stages."):
        return f"backbone.{key}"
    match, offset = _OLD.fullmatch(key), 0
    if match is None:
        match, offset = _NVLABS.fullmatch(key), 1
    if match is None:
        return key
    kind, stage, block, module, value = match.groups()
    place = f"backbone.stages.{int(stage) - offset}"
    if kind.startswith("patch_embed") and module is not None:
        return f"{place}.patch_embeddings.{_EMBEDDING.get(module, module)}.{value}"
    if kind == "block" and block is not None and module is not None:
        return f"{place}.blocks.{block}.{_BLOCK.get(module, module)}.{value}"
    return f"{place}.layer_norm.{value}" if module is None and block is None else key


def of_head(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same under fastuda's keys of a head; what has none there keeps its own. Keys without `decode_head.`."""
    # mmsegmentation counts SegFormer's embeddings from 1, the library under the same word from 0.
    from_one = "linear_c4.proj.weight" in tensors
    found = {}
    for key, value in tensors.items():
        if from_one and (match := _COUNTED.fullmatch(key)):
            found[f"head.embed.{int(match[1]) - 1}.{match[2]}"] = value
            continue
        hits = (re.sub(shape, ours, key) for shape, ours in _HEADS if re.fullmatch(shape, key))
        renamed = next(hits, None)
        found[key if renamed is None else f"head.{renamed.replace('.bn.', '.norm.')}"] = value
    return found


def of_attention(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """HRDA's attention under fastuda's keys, where it is a head `mlp`; keys without `decode_head.scale_attention.`."""
    found = {}
    for key, value in tensors.items():
        hits = (re.sub(shape, ours, key) for shape, ours in _ATTENTION if re.fullmatch(shape, key))
        renamed = next(hits, key)
        if renamed == "fuse.conv.weight" and value.ndim == 4 and value.shape[1] % 4 == 0:
            value = torch.cat(value.chunk(4, dim=1)[::-1], dim=1)  # theirs reads the finest map first, `mlp` last
        found[f"{ATTENTION}{renamed}"] = value
    return found
