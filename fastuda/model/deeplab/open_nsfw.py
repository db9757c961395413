"""Yahoo's Open-NSFW classifier as a backbone: a ResNet-50 of half width for photographs, out of its ONNX file.

The weights are Yahoo's (2016, BSD 2-clause licence). Where the file has kept BatchNorm's mean and shift, its variance
and scale have become one factor; to train on, both are needed again. So the network looks at pictures with the
statistics of photographs, the variances are what it sees there, and the scales what leaves its answers as they were.
They are estimates: held against those that the network was trained with, a layer's median comes out 0.35 to 1.8 times
as large, and layer4's two fifths too low, for want of things to recognise.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from fastuda.errors import FastudaError
from fastuda.model.deeplab.dead_leaves import dead_leaves
from fastuda.model.deeplab.resnet import BLOCKS, STEM_CHANNELS, Depth
from fastuda.model.onnx_file import PARTS
from fastuda.model.soundness import check_kinds, check_values, listed, misfits

DEPTH: Depth = 50
WIDTH = 0.5
_PLANES = 32
_MEAN_BGR = (104.0, 117.0, 123.0)
_PICTURES, _SIDE = 12, 224
"""The side is the one that the network was trained at."""
_EPS = 1e-5


def is_folded(keys: Collection[str]) -> bool:
    """Whether they are the keys of convolutions read out of an ONNX file, and of nothing else."""
    return len(keys) > 0 and set(keys) == set(_keys(len(keys) // len(PARTS)))


def is_open_nsfw(keys: Collection[str]) -> bool:
    """Whether they are as many as this network has."""
    return is_folded(keys) and len(keys) == len(PARTS) * len(list(_layers()))


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
            content[f"convolutions.{number}.{part}"].float() for part in PARTS
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


def _keys(convolutions: int) -> Iterator[str]:
    for number in range(convolutions):
        for part in PARTS:
            yield f"convolutions.{number}.{part}"


def _check_shapes(content: Mapping[str, Tensor]) -> None:
    shapes = [shape for _, shape in _layers()]
    found = len(content) // len(PARTS)
    intro = f"of ONNX files fastuda knows Yahoo's Open-NSFW classifier alone, with {len(shapes)} convolutions, and "
    if found != len(shapes):
        raise FastudaError(f"{intro}this one has {found}")
    wanted = [torch.Size(shape if part == "weight" else shape[:1]) for shape in shapes for part in PARTS]
    if problems := misfits(content, dict(zip(_keys(found), wanted, strict=True))):
        raise FastudaError(f"{intro}of this one's {listed(problems, 3)}")
