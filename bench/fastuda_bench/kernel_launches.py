"""Every kernel launch of the operations at real sizes and at the smallest ones, recorded without a GPU.

Tensors are torch's meta tensors, which have shapes and types and no memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from fastuda_kernels.batch_norm import triton as batch_norm
from fastuda_kernels.masked_mix import triton as masked_mix
from fastuda_kernels.pixel_contrast import triton as pixel_contrast
from fastuda_kernels.pseudo_label import triton as pseudo_label
from fastuda_kernels.upsample_cross_entropy import triton as upsample_cross_entropy

_H200_MULTIPROCESSORS = 132
_MODULES: tuple[Any, ...] = (batch_norm, masked_mix, pixel_contrast, pseudo_label, upsample_cross_entropy)
_SIZES = ((2, 19, 65, 512), (1, 150, 1, 1))
"""Images, classes, low resolution and full size: the paper's crops, and one pixel of the most classes in use."""
_LAYERS = ((2, 1024, 91, 1, torch.bfloat16), (6, 64, 65, 3, torch.float32), (4, 5, 1, 4, torch.float16))
"""Images, channels, height and width, groups, type."""


@dataclass(frozen=True)
class Launch:
    """A kernel with the arguments of a launch."""

    kernel: Any
    arguments: tuple[Any, ...]
    constants: dict[str, Any]
    size: str
    """Of the operation's arguments, for a reader."""


def recorded_launches() -> list[Launch]:
    """The launches of every operation, in the order of the operations; nothing is run."""
    launches: list[Launch] = []
    for num_images, num_classes, low, full in _SIZES:
        with _recorded(launches, f"{num_images}×{num_classes}×{low}² → {full}²"):
            logits = _empty(num_images, num_classes, low, low, dtype=torch.bfloat16)
            labels = _empty(num_images, full, full, dtype=torch.uint8)
            _mix(labels, num_classes)
            _label(logits, labels)
            _cross_entropy(logits, labels)
            _contrast(logits)
    for num_images, num_channels, side, num_groups, dtype in _LAYERS:
        with _recorded(launches, f"{num_images}×{num_channels}×{side}², {num_groups} groups"):
            _normalise(_empty(num_images, num_channels, side, side, dtype=dtype), num_groups)
    return launches


@contextmanager
def _recorded(launches: list[Launch], size: str) -> Iterator[None]:
    """While entered, operations launch nothing and say to `launches` what they would have launched on an H200."""

    def record(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
        launches.append(Launch(kernel, arguments, constants, size))

    stand_ins = {
        "launch": record,
        "wrap_triton": lambda kernel: kernel,
        "num_multiprocessors": lambda device: _H200_MULTIPROCESSORS,
    }
    with ExitStack() as stack:
        for module in _MODULES:
            for name, stand_in in stand_ins.items():
                if hasattr(module, name):
                    stack.enter_context(mock.patch.object(module, name, stand_in))
        yield


def _empty(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(size, dtype=dtype, device="meta")


def _mix(labels: Tensor, num_classes: int) -> None:
    crop = _empty(*labels.shape, 3, dtype=torch.uint8)
    chosen = _empty(len(labels), num_classes, dtype=torch.bool)
    confidence, numbers = _empty(*labels.shape), ([1.0] * 3, [1.0] * 3)
    masked_mix.choose_present._init_fn(labels, _empty(*chosen.shape), 0.5, 0, True)
    masked_mix.normalise_values._init_fn(crop, *numbers, True, torch.float16)
    kinds = ((0, torch.float32), (1, torch.float16), (2, torch.bfloat16))
    for keep, dtype in kinds if labels.numel() > 1 else kinds[2:]:
        ends = (confidence, chosen, *numbers, keep == 1, dtype, 0.95, 255, keep, keep == 2)
        masked_mix.mix._init_fn(*[crop] * 4, labels, labels, None, None, *ends)
    by_pixel = (confidence, labels, *numbers, True, torch.bfloat16, 0.95, 255, 2, True)
    masked_mix.mix._init_fn(*[crop] * 4, labels, labels, None, None, *by_pixel)


def _label(logits: Tensor, labels: Tensor) -> None:
    size, boxes, flip = labels.shape[1:], _empty(len(logits), 4), _empty(len(logits), dtype=torch.bool)
    pseudo_label.label_of_upsampled._init_fn(logits, *size, None, *size, None, None, True)
    pseudo_label.label_of_upsampled._init_fn(logits, *size, logits, 640, 1280, boxes, flip, True)
    pseudo_label.label_of_upsampled._init_fn(logits, *size, logits, 640, 1280, boxes, flip, False)
    pseudo_label.confusion_of_upsampled._init_fn(logits, labels, 255, True)
    pseudo_label.confusion_of_upsampled._init_fn(logits, labels, 255, False)


def _cross_entropy(logits: Tensor, labels: Tensor) -> None:
    cross_entropy = upsample_cross_entropy.cross_entropy_with_gradient._init_fn
    cross_entropy(logits, labels, None, None, 255, True, True)
    cross_entropy(logits, labels.long(), labels.bool(), _empty(*labels.shape), 255, False, True)
    cross_entropy(logits, labels, None, None, 255, True, False)


def _contrast(logits: Tensor) -> None:
    rows = logits.flatten(2).transpose(1, 2)
    for split, valid in ((True, None), (False, _empty(*rows.shape[:2], dtype=torch.bool))):
        kept = pixel_contrast.contrast_forward._init_fn(rows, rows, valid, 20.0, split, split)[1:]
        pixel_contrast.contrast_backward._init_fn(_empty(), rows, *kept, valid, 20.0, split, split)


def _normalise(x: Tensor, num_groups: int) -> None:
    x = x.contiguous(memory_format=torch.channels_last)
    channel = _empty(x.shape[1])
    counted = _empty(dtype=torch.int64) if num_groups == 1 else None
    mean, rstd = batch_norm.statistics._init_fn(x, channel, channel, counted, num_groups, 0.1, 1e-5)
    for residual, relu in ((x, True), (None, True), (None, False)):  # a block's end, within it, a shortcut's
        y, mask = batch_norm.normalise._init_fn(x, mean, rstd, channel, channel, residual, relu, relu)
        more, with_dz = (None, False) if residual is None else (y, True)
        batch_norm.normalise_backward._init_fn(y, more, x, mask, mean, rstd, channel, relu, with_dz)
