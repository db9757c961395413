"""Weights under the names of the package efficientnet_lite_pytorch, brought under fastuda's."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache

import torch
from torch import Tensor

from fastuda.errors import FastudaError
from fastuda.model.efficientnet_lite.backbone import EfficientNetLite
from fastuda.model.efficientnet_lite.shape import SCALES, Variant, stages_of
from fastuda.model.family import ImportedWeights
from fastuda.model.soundness import check_kinds, check_values, listed, misfits

ORIGIN = "efficientnet-lite-pytorch"
_ANCHORS = ("_conv_stem.weight", "_blocks.0._depthwise_conv.weight")
_CLASSIFIER = ("_conv_head.", "_bn1.", "_fc.")
_STEM = {"_conv_stem": "stem", "_bn0": "stem_norm"}
_BLOCK = {
    "_expand_conv": "expand",
    "_bn0": "expand_norm",
    "_depthwise_conv": "depthwise",
    "_bn1": "depthwise_norm",
    "_project_conv": "project",
    "_bn2": "project_norm",
}
_KEY = re.compile(r"(?:_blocks\.([0-9]{1,3})\.)?(_[a-z0-9_]+)\.([a-z_]+)")


def is_of_package(keys: Collection[str]) -> bool:
    """Whether they are the keys of an EfficientNet as that package, and the one it was made of, names them."""
    return all(anchor in keys for anchor in _ANCHORS)


def imported(tensors: Mapping[str, Tensor], dropped: Mapping[str, str]) -> tuple[Variant, ImportedWeights]:
    """The backbone, and which variant it is. Raises FastudaError, without the file, when it is none."""
    if any("._se_" in key for key in tensors):
        raise FastudaError(
            "it holds an EfficientNet with squeeze-and-excitation (_se_reduce), such as B0; fastuda has the Lite ones, "
            f"{', '.join(SCALES)}"
        )
    left = dict(dropped)
    left |= {key: "the ImageNet classifier" for key in tensors if key.startswith(_CLASSIFIER)}
    kept = {key: value for key, value in tensors.items() if key not in left}
    check_kinds(kept)
    problems: dict[Variant, list[str]] = {}
    for variant in SCALES:
        state = {_renamed(key, variant): value for key, value in kept.items()}
        problems[variant] = misfits(state, shapes_of(variant))
        if not problems[variant]:
            check_values(state)
            return variant, ImportedWeights(state=state, origin=ORIGIN, input="rgb-tf", num_classes=None, dropped=left)
    nearest = min(problems, key=lambda variant: len(problems[variant]))
    raise FastudaError(
        f"its keys are an EfficientNet-Lite's, but {len(problems[nearest])} do not fit {nearest}, the nearest: "
        f"{listed(problems[nearest])}"
    )


@cache
def shapes_of(variant: Variant) -> dict[str, torch.Size]:
    """Keys of a network's backbone and their shapes."""
    with torch.device("meta"):
        network = EfficientNetLite(variant, output_stride=16)
    return {f"backbone.{key}": value.shape for key, value in network.state_dict().items()}


def _renamed(key: str, variant: Variant) -> str:
    """fastuda's key; what has none keeps its own."""
    match = _KEY.fullmatch(key)
    if match is None:
        return key
    block, module, value = match.groups()
    if block is None:
        return f"backbone.{_STEM[module]}.{value}" if module in _STEM else key
    places = list(_places(variant))
    if int(block) >= len(places) or module not in _BLOCK:
        return key
    stage, number = places[int(block)]
    return f"backbone.stages.{stage}.{number}.{_BLOCK[module]}.{value}"


def _places(variant: Variant) -> Iterator[tuple[int, int]]:
    """Stage, and place in it, of each block in its order."""
    for i, stage in enumerate(stages_of(variant)):
        for number in range(stage.repeats):
            yield i, number
