"""Whose weights a file holds, told from its keys, and the same weights under fastuda's names.

Five kinds are known: torchvision's ResNets, DeepLab's `Scale.` initialisation, checkpoints
released by the AdaptSegNet, DSP and EHTDI lineage, Yahoo's Open-NSFW, and fastuda's own files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fastuda.errors import FastudaError
from fastuda.model.deeplab.foreign import foreign
from fastuda.model.deeplab.header import read_header
from fastuda.model.deeplab.open_nsfw import is_folded, unfolded
from fastuda.model.deeplab.resnet import BLOCKS, Depth, StrideOn
from fastuda.model.deeplab.shapes import check_shapes, classes_of, planes_of
from fastuda.model.family import ImportedWeights
from fastuda.model.soundness import check_kinds, check_values
from fastuda.model.wrappers import unwrap
from fastuda.recipe.model import InputConvention

Convention = Literal["auto", "torchvision", "caffe"]
Origin = Literal["torchvision", "deeplab-init", "released", "open-nsfw", "fastuda"]

HEADS = ("head.", "auxiliary_head.")

_BACKBONE = re.compile(r"(conv1|bn1|layer[1-4])\.")
_CLASSIFIER = re.compile(r"(layer[56])\.conv2d_list\.([0-9]{1,4})\.(weight|bias)")
_OWN_HEAD = re.compile(r"(auxiliary_)?head\.branches\.")
_RUN_STATE = "average.backbone.conv1.weight"
_RELEASED_ASPP = (6, 12)
# DSP's and EHTDI's networks carry these modules beside DeepLab-v2; they take no part in its logits.
_RELEASED_EXTRAS = ("c1", "proto_classifier", "fuse_weight_1", "para", "fc")
_STEM_INPUTS = 3 * 7 * 7


@dataclass(frozen=True, kw_only=True)
class DeepLabWeights(ImportedWeights):
    """What a weights file holds, under the names of `DeepLabV2`, and what it says of its network."""

    origin: Origin
    stride_on: StrideOn
    pool_padding: int
    depth: Depth
    width: float
    """Width factor of the backbone, a multiple of 1/64."""
    aspp: tuple[int, ...] | None
    """The classifier's dilations; None when the file brings none."""

    @property
    def has_auxiliary(self) -> bool:
        """Whether the file brings the classifier on layer3 along."""
        return any(key.startswith("auxiliary_head.") for key in self.state)


@dataclass(frozen=True)
class _Layout:
    """What one kind of file says of itself, before its shapes are read."""

    origin: Origin
    state: dict[str, Tensor]
    input: InputConvention
    stride_on: StrideOn
    pool_padding: int
    aspp: tuple[int, ...] | None = None


def interpret(content: Mapping[object, object], metadata: Mapping[str, str], convention: Convention) -> DeepLabWeights:
    """Recognise the unpickled or mapped `content` of a weights file; see `read_weights`.

    Raises FastudaError, without naming the file, when the keys are of no known kind, or when kinds, shapes or values
    of the tensors are none of such a network's: what it gives back can be loaded.
    """
    if _RUN_STATE in content:
        raise FastudaError(
            "it is the saved state of a run, from which `fastuda train --resume` goes on; name the run's folder, or a "
            "model beside this file, such as adapted-last.safetensors"
        )
    tensors, dropped = unwrap(content)
    classified = any(_CLASSIFIER.fullmatch(key) for key in tensors)
    if is_folded(tensors):
        layout = _open_nsfw(tensors)
    elif _holds_resnet(tensors, "backbone.") and ("model" in metadata or any(_OWN_HEAD.match(key) for key in tensors)):
        layout = _fastuda(tensors, metadata)
    elif _holds_resnet(tensors, "Scale."):
        layout = _deeplab_init(tensors, dropped)
    elif _holds_resnet(tensors, "") and "conv1.weight" in tensors and not _is_foreign(tensors):
        layout = _released(tensors, dropped) if classified else _torchvision(tensors, dropped, convention)
    else:
        raise FastudaError(foreign(tensors))
    if layout.origin in ("released", "deeplab-init", "open-nsfw") and convention == "torchvision":
        raise FastudaError(
            f"its keys are those of the kind {layout.origin}, which is caffe: leave model.convention out"
        )
    check_kinds(layout.state)
    depth, width = _depth_and_width(layout.state)
    num_classes = _num_classes(layout.state)
    check_shapes(
        layout.state,
        depth=depth,
        width=width,
        num_classes=num_classes,
        branches=_branches(layout),
        auxiliary=any(key.startswith("auxiliary_head.") for key in layout.state),
    )
    check_values(layout.state)
    if layout.origin == "torchvision" and convention == "auto" and _expects_bytes(layout.state):
        raise FastudaError(
            "its keys are torchvision's, but its first layer was trained on values of 0-255, as Caffe's are: "
            "say --set model.convention=caffe (or =torchvision to overrule this)"
        )
    return DeepLabWeights(
        state=layout.state,
        origin=layout.origin,
        input=layout.input,
        stride_on=layout.stride_on,
        pool_padding=layout.pool_padding,
        depth=depth,
        width=width,
        num_classes=num_classes,
        aspp=layout.aspp,
        dropped=dropped,
        metadata=dict(metadata),
    )


def _num_classes(state: Mapping[str, Tensor]) -> int | None:
    """Classes of the first branch there is; None for a backbone alone."""
    key = next((key for prefix in HEADS for key in state if key.startswith(prefix) and key.endswith(".weight")), None)
    return None if key is None else classes_of(key, state[key])


def _branches(layout: _Layout) -> int:
    """Branches of each head, as many as there are dilations; raises FastudaError when its tensors say otherwise."""
    count = len(layout.aspp or (1,))
    found = {match[1] for key in layout.state if (match := re.match(r"(?:auxiliary_)?head\.branches\.([0-9]+)\.", key))}
    if layout.origin == "fastuda" and found and len(found) != count:
        raise FastudaError(
            f"its header names {count} dilations (metadata `model`: aspp), and its classifier has {len(found)} branches"
        )
    return count


_BESIDE = ("fc", "layer5", "layer6", *_RELEASED_EXTRAS)
# One key of each stage: a file that lacks them is no ResNet of that naming, whatever single key it may share.
_ANCHORS = ("conv1.weight", "layer1.0.conv1.weight", "layer2.0.conv1.weight", "layer4.0.conv1.weight")


def _is_foreign(tensors: Mapping[str, Tensor]) -> bool:
    """Whether more than half of the keys are no ResNet's: something that only begins with one."""
    known = sum(_BACKBONE.match(key) is not None or key.split(".")[0] in _BESIDE for key in tensors)
    return 2 * known < len(tensors)


def _holds_resnet(tensors: Mapping[str, Tensor], prefix: str) -> bool:
    """Whether most of a ResNet's anchors are there under `prefix`; one of them may be missing and be named later."""
    return sum(prefix + anchor in tensors for anchor in _ANCHORS) >= len(_ANCHORS) - 1


def _fastuda(tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> _Layout:
    network = read_header(metadata)
    return _Layout("fastuda", tensors, network.input, network.stride_on, network.pool_padding, network.aspp)


def _torchvision(tensors: dict[str, Tensor], dropped: dict[str, str], convention: Convention) -> _Layout:
    state = _backbone(tensors, dropped, {"fc": "the ImageNet classifier"})
    if convention == "caffe":
        return _Layout("torchvision", state, "bgr-caffe", "1x1", 0)
    return _Layout("torchvision", state, "rgb-imagenet", "3x3", 1)


def _expects_bytes(state: Mapping[str, Tensor]) -> bool:
    """Whether the stem's BatchNorm has seen more variance than any input of unit variance can give.

    wᵀΣw ≤ |w|² · trace Σ, and the trace of a 7×7×3 patch of unit variance is 147; inputs of
    0-255 give some four thousand times as much.
    """
    weight, variance = state["backbone.conv1.weight"], state["backbone.bn1.running_var"]
    gain = variance.double() / weight.double().square().flatten(1).sum(1).clamp_min(torch.finfo(torch.float64).tiny)
    return bool(gain.median() > 2 * _STEM_INPUTS)


def _deeplab_init(tensors: dict[str, Tensor], dropped: dict[str, str]) -> _Layout:
    plain = {key.removeprefix("Scale."): value for key, value in tensors.items()}
    other = "the classifier of other classes; the heads start anew"
    state = _backbone(plain, dropped, {"layer5": other, "layer6": other, "fc": "the ImageNet classifier"})
    return _Layout("deeplab-init", state, "bgr-caffe", "1x1", 1)


def _open_nsfw(tensors: dict[str, Tensor]) -> _Layout:
    state = {f"backbone.{key}": value for key, value in unfolded(tensors).items()}
    return _Layout("open-nsfw", state, "bgr-caffe", "1x1", 0)


def _released(tensors: dict[str, Tensor], dropped: dict[str, str]) -> _Layout:
    two_heads = any(key.startswith("layer6.") for key in tensors)
    heads = {"layer6": "head", "layer5": "auxiliary_head"} if two_heads else {"layer5": "head"}
    state = {}
    for key in list(tensors):
        match = _CLASSIFIER.fullmatch(key)
        if match is None:
            continue
        layer, branch, parameter = match.groups()
        value = tensors.pop(key)
        if int(branch) < len(_RELEASED_ASPP):
            state[f"{heads[layer]}.branches.{branch}.{parameter}"] = value
        else:
            dropped[key] = "this branch never acted in the code that trained it (protocol row 18)"
    extras = dict.fromkeys(_RELEASED_EXTRAS, "no part of DeepLab-v2")
    return _Layout("released", _backbone(tensors, dropped, extras) | state, "bgr-caffe", "1x1", 1, _RELEASED_ASPP)


def _backbone(tensors: Mapping[str, Tensor], dropped: dict[str, str], unwanted: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors under `backbone.`; those of `unwanted` modules are dropped, unknown keys keep their name."""
    state = {}
    for key, value in tensors.items():
        module = key.split(".")[0]
        if module in unwanted:
            dropped[key] = unwanted[module]
        else:
            state[f"backbone.{key}" if _BACKBONE.match(key) else key] = value
    return state


def _depth_and_width(state: Mapping[str, Tensor]) -> tuple[Depth, float]:
    counts = []
    for layer in range(1, 5):
        found = (re.match(rf"backbone\.layer{layer}\.([0-9]{{1,4}})\.", key) for key in state)
        counts.append(1 + max((int(match.group(1)) for match in found if match), default=-1))
    bottleneck = "backbone.layer1.0.conv3.weight" in state
    first = state.get("backbone.layer1.0.conv1.weight")
    for depth, blocks in BLOCKS.items():
        if first is not None and tuple(counts) == blocks and bottleneck == (depth != 18):
            return depth, planes_of(first) / 64
    kind = "bottlenecks" if bottleneck else "basic blocks"
    raise FastudaError(
        f"it holds a ResNet with {', '.join(map(str, counts))} {kind} in layer1 to layer4; "
        f"fastuda has ResNet-{', -'.join(map(str, BLOCKS))}"
    )
