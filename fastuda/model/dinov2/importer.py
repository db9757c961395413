"""Whose DINOv2 a file holds, told from its keys, and its tensors under fastuda's names.

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
    "the transformers library's (encoder.layer.0.attention.attention.query.weight …), and Facebook Research's own "
    "(blocks.0.attn.qkv.weight, pos_embed …)"
)
_LIBRARY = re.compile(r"(?:dinov2\.|dinov2_with_registers\.)?encoder\.layer\.0\.layer_scale1\.lambda1")
_FACEBOOK = ("pos_embed", "blocks.0.ls1.gamma", "blocks.0.attn.qkv.weight")
_PREFIX = re.compile(r"^(?:dinov2|dinov2_with_registers)\.")
_TOP = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "register_tokens": "embeddings.register_tokens",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
}
_ATTENTION = {
    ".attention.attention.query.": ".attention.q_proj.",
    ".attention.attention.key.": ".attention.k_proj.",
    ".attention.attention.value.": ".attention.v_proj.",
    ".attention.output.dense.": ".attention.o_proj.",
}
_MASK = ("mask_token", "embeddings.mask_token")


def is_dinov2(keys: Collection[str]) -> bool:
    """Whether they are the keys of a DINOv2 as somebody known names them."""
    return all(anchor in keys for anchor in _FACEBOOK) or any(_LIBRARY.fullmatch(key) for key in keys)


def translated(content: Mapping[object, object]) -> Translated | None:
    """The encoder of a file; None for keys of nobody's. Raises FastudaError, without the file, for another size."""
    tensors, dropped = unwrap(content)
    if not is_dinov2(tensors):
        return None
    check_kinds(tensors)
    of_facebook = _FACEBOOK[0] in tensors
    plain = {_PREFIX.sub("", key): value for key, value in tensors.items()}
    for key in [key for key in plain if key in _MASK or key.startswith("classifier.")]:
        dropped[key] = "the mask of its first training" if key in _MASK else "the ImageNet classifier"
        del plain[key]
    own = with_split_attention(plain) if of_facebook else plain
    state = {f"backbone.{(_of_facebook if of_facebook else _of_library)(key)}": value for key, value in own.items()}
    return Translated(
        state=state, told=_told(state), origin="facebook" if of_facebook else "transformers", dropped=dropped
    )


def _of_facebook(key: str) -> str:
    return _TOP.get(key, of_block(key, {}))


def _of_library(key: str) -> str:
    for theirs, ours in _ATTENTION.items():
        key = key.replace(theirs, ours)
    return re.sub(r"^layernorm\.", "norm.", re.sub(r"^encoder\.layer\.", "layers.", key))


def _told(state: Mapping[str, Tensor]) -> dict[str, object]:
    width, depth = variant_shapes(state)
    variant = next((one for one, shape in SHAPES.items() if (shape.width, shape.depth) == (width, depth)), None)
    if variant is None:
        raise FastudaError(
            f"its keys are DINOv2's, of {depth} blocks and {width} features, which is none of {', '.join(SHAPES)}"
        )
    return {"variant": variant, "registers": "backbone.embeddings.register_tokens" in state}
