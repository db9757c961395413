"""Yahoo's Open-NSFW classifier as a backbone: a ResNet-50 of half width for photographs, out of its ONNX file.

The weights are Yahoo's (2016, BSD 2-clause licence). Where the file has kept BatchNorm's mean and shift, its variance
and scale have become one factor; to train on, both are needed again. So the network looks at pictures with the
statistics of photographs, the variances are what it sees there, and the scales what leaves its answers as they were.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from fastuda.errors import FastudaError
from fastuda.model.deeplab.dead_leaves import dead_leaves
from fastuda.model.deeplab.resnet import BLOCKS, STEM_CHANNELS, Depth
from fastuda.model.soundness import check_kinds, check_values, size

DEPTH: Depth = 50
WIDTH = 0.5
_PLANES = 32
_MEAN_BGR = (104.0, 117.0, 123.0)
_PICTURES, _SIDE = 12, 224
"""The side is the one that the network was trained at."""
_EPS = 1e-5


def is_folded(keys: Collection[str]) -> bool:
    """Whether they are the keys of convolutions read out of an ONNX file."""
    return "convolutions.0.weight" in keys


def unfolded(content: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The backbone under torchvision's names, BatchNorm and all, from the convolutions of the ONNX file (`read_onnx`).

    Its function is the file's; variances are estimated, in a second or two, and the same every time. Raises
    FastudaError, without the file, when the convolutions are not this network's.
    """
    check_kinds(content)
    _check_shapes(content)
    check_values(content)
    layers = {name: _Layer(content, number) for number, (name, _) in enumerate(_layers())}
    with torch.no_grad():
        _look(layers, dead_leaves(_PICTURES, _SIDE).flip(1) - torch.tensor(_MEAN_BGR)[:, None, None])
    state = {}
    for convolution, layer in layers.items():
        state[f"{convolution}.weight"] = layer.weight
        norm = _norm_of(convolution)
        state[f"{norm}.weight"] = layer.scale * (layer.variance + _EPS).sqrt()
        state[f"{norm}.bias"] = layer.offset
        state[f"{norm}.running_mean"] = -layer.shift
        state[f"{norm}.running_var"] = layer.variance
    return state


class _Layer:
    """A convolution with what stands for its BatchNorm."""

    def __init__(self, content: Mapping[str, Tensor], number: int) -> None:
        self.weight, self.shift, self.scale, self.offset = (
            content[f"convolutions.{number}.{name}"].float() for name in ("weight", "shift", "scale", "offset")
        )
        self.variance = torch.empty(0)

    def __call__(self, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        x = F.conv2d(x, self.weight, stride=stride, padding=padding)
        self.variance = x.var(dim=(0, 2, 3))
        return ((x.add_(self.shift[:, None, None])).mul_(self.scale[:, None, None])).add_(self.offset[:, None, None])


def _look(layers: Mapping[str, _Layer], images: Tensor) -> None:
    """Have every layer see `images`, BGR around 0, as the classifier would: at a stride of 32 pixels in the end."""
    x = F.max_pool2d(layers["conv1"](images, 2, 3).relu_(), 3, 2, ceil_mode=True)
    for stage, blocks in enumerate(BLOCKS[DEPTH], 1):
        for block in range(blocks):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            branch = layers[f"{name}.conv1"](x, stride).relu_()
            branch = layers[f"{name}.conv2"](branch, 1, 1).relu_()
            branch = layers[f"{name}.conv3"](branch)
            shortcut = x if block else layers[f"{name}.downsample.0"](x, stride)
            x = branch.add_(shortcut).relu_()


def _layers() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the convolutions in the order of the graph: a shortcut's before the block's third."""
    yield "conv1", (STEM_CHANNELS, 3, 7, 7)
    channels = STEM_CHANNELS
    for stage, blocks in enumerate(BLOCKS[DEPTH]):
        planes = _PLANES * 2**stage
        for block in range(blocks):
            name = f"layer{stage + 1}.{block}"
            yield f"{name}.conv1", (planes, channels, 1, 1)
            yield f"{name}.conv2", (planes, planes, 3, 3)
            if block == 0:
                yield f"{name}.downsample.0", (4 * planes, channels, 1, 1)
            yield f"{name}.conv3", (4 * planes, planes, 1, 1)
            channels = 4 * planes


def _norm_of(convolution: str) -> str:
    """The name of the BatchNorm behind a convolution."""
    if convolution.endswith("downsample.0"):
        return convolution.removesuffix("0") + "1"
    return convolution.replace("conv", "bn")


def _check_shapes(content: Mapping[str, Tensor]) -> None:
    wanted = [shape for _, shape in _layers()]
    found: list[tuple[int, ...]] = []
    while (key := f"convolutions.{len(found)}.weight") in content:
        found.append(tuple(content[key].shape))
    if found != wanted:
        first = next((i for i, pair in enumerate(zip(found, wanted, strict=False)) if pair[0] != pair[1]), None)
        where = "" if first is None else f", convolution {first} of {size(found[first])} for {size(wanted[first])}"
        raise FastudaError(
            f"of ONNX files fastuda knows Yahoo's Open-NSFW classifier alone, with {len(wanted)} convolutions, and "
            f"this one has {len(found)}{where}"
        )
