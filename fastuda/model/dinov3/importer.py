"""Whose DINOv3 a file holds, told from its keys, and its tensors under fastuda's names.

Known are Facebook Research's own files, and the transformers library's under its names of today and those that the
published files have.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from torch import Tensor

from fastuda.errors import FastudaError
from fastuda.model.soundness import check_kinds
from fastuda.model.transformer.family import Translated
from fastuda.model.transformer.vit_names import of_block, variant_shapes, with_split_attention
from fastuda.model.transformer.vit_shape import SHAPES
from fastuda.model.wrappers import unwrap

KEYS = (
    "the transformers library's (layer.0.attention.q_proj.weight, embeddings.register_tokens …), and Facebook "
    "Research's own (blocks.0.attn.qkv.weight, storage_tokens …)"
)
_LIBRARY = re.compile(r"(?:model\.)?layer\.0\.layer_scale1\.lambda1")
_EMBEDDED = "embeddings.register_tokens"
_FACEBOOK = ("storage_tokens", "blocks.0.ls1.gamma", "blocks.0.attn.qkv.weight")
_TOP = {
    "cls_token": "embeddings.cls_token",
    "storage_tokens": "embeddings.register_tokens",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.bias",
}
_MLP = {"mlp.fc1": "mlp.up_proj", "mlp.fc2": "mlp.down_proj"}
# Keys without a place in the network → why.
_LEFT_OUT = (
    (r"(embeddings\.)?mask_token", "the mask of its first training"),
    (r"rope_embed(dings)?\..*", "frequencies, which the network computes"),
    (r"(local_)?cls_norm\..*", "a norm of its first training"),
    (r"blocks\.\d+\.attn\.qkv\.bias_mask", "says that keys have no bias, as the network's have none"),
    (r"layers\.\d+\.attention\.k_proj\.bias", "keys have no bias: the file's own mask turns it off"),
)


def is_dinov3(keys: Collection[str]) -> bool:
    """Whether they are the keys of a DINOv3 as somebody known names them."""
    return all(anchor in keys for anchor in _FACEBOOK) or any(_LIBRARY.fullmatch(key) for key in keys)


def translated(content: Mapping[object, object]) -> Translated | None:
    """The encoder of a file; None for keys of nobody's. Raises FastudaError, without the file, for another size."""
    tensors, dropped = _opened(content)
    if not is_dinov3(tensors):
        return None
    check_kinds(tensors)
    of_facebook = _FACEBOOK[0] in tensors
    own = with_split_attention(tensors) if of_facebook else tensors
    state = {}
    for key, value in own.items():
        reason = next((why for shape, why in _LEFT_OUT if re.fullmatch(shape, key)), None)
        if reason is not None:
            dropped[key] = reason
        else:
            state[f"backbone.{_of_facebook(key) if of_facebook else _of_library(key)}"] = value
    return Translated(
        state=state, told=_told(state), origin="facebook" if of_facebook else "transformers", dropped=dropped
    )


def _opened(content: Mapping[object, object]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file. The library puts `model.` before the blocks alone, where it is no wrapper's."""
    if _EMBEDDED in content:
        return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}, {}
    return unwrap(content)


def _of_facebook(key: str) -> str:
    return _TOP.get(key, of_block(key, _MLP))


def _of_library(key: str) -> str:
    return re.sub(r"^(?:model\.)?layer\.", "layers.", key)


def _told(state: Mapping[str, Tensor]) -> dict[str, object]:
    width, depth = variant_shapes(state)
    variant = next((one for one, shape in SHAPES.items() if (shape.width, shape.depth) == (width, depth)), None)
    if variant is None:
        raise FastudaError(
            f"its keys are DINOv3's, of {depth} blocks and {width} features, which is none of {', '.join(SHAPES)}"
        )
    return {"variant": variant}
