"""The shapes that a DeepLab-v2's tensors have, and the network's size as a stranger's tensors tell it."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import torch
from torch import Tensor

from fastuda.errors import FastudaError
from fastuda.model.deeplab.network import DeepLabV2
from fastuda.model.deeplab.resnet import Depth
from fastuda.model.soundness import MOST_CLASSES, listed, misfits, size

_MOST_PLANES = 128


def planes_of(weight: Tensor) -> int:
    """Channels of layer1's inner convolutions, from the first one's weight; raises FastudaError out of 1..128."""
    return _outputs("backbone.layer1.0.conv1.weight", weight, _MOST_PLANES, "channels, of the widths up to 2")


def classes_of(key: str, weight: Tensor) -> int:
    """Classes of a head, from one branch's weight; raises FastudaError out of 1..255."""
    return _outputs(key, weight, MOST_CLASSES, "classes")


def _outputs(key: str, weight: Tensor, most: int, what: str) -> int:
    if weight.ndim != 4 or not 1 <= weight.shape[0] <= most:
        raise FastudaError(f"{key} is {size(weight)}, and should be N×M×K×K with N from 1 to {most} {what}")
    return weight.shape[0]


def check_shapes(
    tensors: Mapping[str, Tensor],
    *,
    depth: Depth,
    width: float,
    num_classes: int | None,
    branches: int,
    auxiliary: bool,
) -> None:
    """Hold keys and shapes against the network that the arguments describe, all of them within bounds.

    Without `num_classes` the network is a backbone. Raises FastudaError, without the file, that names the keys.
    """
    network = _shapes(depth, width, num_classes or 1, branches, auxiliary)
    wanted = {key: shape for key, shape in network.items() if num_classes or key.startswith("backbone.")}
    if problems := misfits(tensors, wanted):
        heads = f" with a classifier of {num_classes} classes" if num_classes else ""
        raise FastudaError(
            f"{len(problems)} keys do not fit ResNet-{depth} at width {width:g}{heads}: {listed(problems)}"
        )


@functools.lru_cache(maxsize=8)
def _shapes(depth: Depth, width: float, num_classes: int, branches: int, auxiliary: bool) -> dict[str, torch.Size]:
    with torch.device("meta"):
        network = DeepLabV2(num_classes, depth=depth, width=width, aspp=(1,) * branches, auxiliary=auxiliary)
    return {key: value.shape for key, value in network.state_dict().items()}
