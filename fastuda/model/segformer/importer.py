"""Whose Mix Transformer a file holds, told from its keys, and its tensors under fastuda's names.

Known are NVlabs' files and mmsegmentation's around them (SegFormer, DAFormer, HRDA, MIC), and the transformers
library's, under its names of today and those that the published files have.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from torch import Tensor

from fastuda.errors import FastudaError
from fastuda.model.segformer.names import of_attention, of_encoder, of_head
from fastuda.model.segformer.shape import SHAPES, Shape, Variant
from fastuda.model.soundness import check_kinds, size
from fastuda.model.transformer.family import CLASSIFIER, Translated
from fastuda.model.transformer.settings import MOST_CHANNELS
from fastuda.model.wrappers import unwrap
from fastuda.printable import on_one_line

KEYS = (
    "the transformers library's (segformer.encoder.block.0.0.attention.self.query.weight …), NVlabs' "
    "(patch_embed1.proj.weight …), and those of DAFormer, HRDA and MIC (model.backbone.patch_embed1.proj.weight, "
    "model.decode_head.…)"
)
_STUDENT = "model."
_OTHERS = {
    "ema_model.": "the trainer's teacher; the student, which its authors score, was taken",
    "imnet_model.": "the trainer's ImageNet copy",
}
_BACKBONE, _HEAD, _LIBRARY = "backbone.", "decode_head.", "segformer."
_ANCHOR = re.compile(
    r"(?:model\.)?(?:backbone\.)?(?:patch_embed1\.proj\.weight|"
    r"(?:segformer\.)?(?:encoder\.patch_embeddings\.0\.proj|stages\.0\.patch_embeddings\.proj)\.weight)"
)
_SCALES = "scale_attention."
_DETAIL = 512  # of all that is released (hr_crop_size); no tensor tells it
_BLOCK = re.compile(r"backbone\.stages\.([0-3])\.blocks\.(\d{1,3})\.")


def is_mix_transformer(keys: Collection[str]) -> bool:
    """Whether they are the keys of a Mix Transformer, alone or in a network, as somebody known names them."""
    return any(_ANCHOR.fullmatch(key) for key in keys)


def translated(content: Mapping[object, object]) -> Translated | None:
    """The encoder of a file and its head, if it has one that fastuda knows; None for keys of nobody's."""
    tensors, dropped = _of_student(content)
    if not is_mix_transformer(tensors):
        return None
    check_kinds(tensors)
    of_library = any("patch_embeddings" in key for key in tensors)
    head = {key.removeprefix(_HEAD): value for key, value in tensors.items() if key.startswith(_HEAD)}
    rest = {key: value for key, value in tensors.items() if not key.startswith(_HEAD)}
    prefix = _LIBRARY if of_library else _BACKBONE
    rest = {key.removeprefix(prefix): value for key, value in rest.items()}
    for key in [key for key in rest if key.startswith(("head.", "classifier."))]:
        dropped[key] = "the ImageNet classifier"
        del rest[key]
    attention = {key.removeprefix(_SCALES): value for key, value in head.items() if key.startswith(_SCALES)}
    head = {key.removeprefix("head."): value for key, value in head.items() if not key.startswith(_SCALES)}
    if "linear_pred.weight" in head:
        for key in [key for key in head if key.startswith("conv_seg.")]:
            dropped[_HEAD + key] = "a classifier that SegFormer's head has and does not use"
            del head[key]
    state = of_encoder(rest) | of_head(head) | of_attention(attention)
    told: dict[str, object] = {"variant": _variant_of(state)}
    if CLASSIFIER in state:
        told |= _head_of(state) | ({"detail": _DETAIL} if attention else {})
    return Translated(state=state, told=told, origin="transformers" if of_library else "nvlabs", dropped=dropped)


def _of_student(content: Mapping[object, object]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The student's tensors of a trainer that keeps a teacher and more beside it; else all tensors of the file."""
    inner = content.get("state_dict", content)
    level = inner if isinstance(inner, Mapping) else content
    own = {key: value for key, value in level.items() if isinstance(key, str) and key.startswith(_STUDENT)}
    if not is_mix_transformer(own.keys()):
        return unwrap(content)
    tensors = {key.removeprefix(_STUDENT): value for key, value in own.items() if isinstance(value, Tensor)}
    left = [on_one_line(str(key), 100) for key in level if key not in own]
    reasons = {key: _OTHERS.get(key.partition(".")[0] + ".", "not the network's weights") for key in left}
    return tensors, reasons


def _variant_of(state: Mapping[str, Tensor]) -> Variant:
    """The variant of an encoder's tensors. Raises FastudaError, without the file, where they are none's."""
    places = {(int(match[1]), int(match[2])) for match in map(_BLOCK.match, state) if match}
    depths = tuple(sum(stage == own for own, _ in places) for stage in range(4))
    norms = [state.get(f"backbone.stages.{stage}.layer_norm.weight") for stage in range(4)]
    widths = tuple(0 if norm is None else norm.numel() for norm in norms)
    variant = next((one for one, shape in SHAPES.items() if shape == Shape(widths, depths)), None)  # type: ignore[arg-type]
    if variant is None:
        raise FastudaError(
            f"its keys are a Mix Transformer's, of {list(depths)} blocks and {list(widths)} features in its stages, "
            f"which is none of {', '.join(SHAPES)}; a key may be missing, or have another name"
        )
    return variant


def _head_of(state: Mapping[str, Tensor]) -> dict[str, object]:
    """Kind and width of the head, as its keys tell."""
    kind = "daformer" if "head.bottleneck.conv.weight" in state else "mlp"
    weight = state[CLASSIFIER]
    if weight.ndim != 4 or weight.shape[1] > MOST_CHANNELS:
        raise FastudaError(f"its classifier is {size(weight)}, and should be N×M×1×1 with M from 1 to {MOST_CHANNELS}")
    return {"head": kind, "head_channels": weight.shape[1]}
