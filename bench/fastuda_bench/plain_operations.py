"""The step on operations as one would type them in PyTorch, not fastuda's own: the ladder's lower rungs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from fastuda_bench.formulas import cropped_pseudo_label, dense_contrast, upsampled_cross_entropy
from fastuda_kernels.pixel_contrast import pixel_contrast


@contextmanager
def plain_operations() -> Iterator[None]:
    """While entered, the method runs on dense, full-size formulas, and no Triton kernel is chosen.

    Contrast over the whole matrix, cross-entropy of upsampled logits, pseudo-labels by `grid_sample`;
    mixing by the references, which are plain PyTorch. Same arguments, same results.
    """
    replaced = {
        "fastuda.method.contrast.pixel_contrast": _contrast,
        "fastuda.method.segmentation.upsample_cross_entropy": _cross_entropy,
        "fastuda.method.pseudo_labels.pseudo_label": _pseudo_label,
        "fastuda_kernels.masked_mix.runs_triton": lambda tensor: False,
        "fastuda_kernels.pixel_contrast.runs_triton": lambda tensor: False,
    }
    with ExitStack() as stack:
        for name, replacement in replaced.items():
            stack.enter_context(patch(name, replacement))
        yield


def _contrast(
    p: Tensor, q: Tensor, scale: float = 20.0, *, from_logits: bool = False, valid: Tensor | None = None, **_: Any
) -> Tensor:
    if valid is not None or not from_logits:  # prototypes: a matrix of classes, nothing to gain or lose
        return pixel_contrast(p, q, scale, from_logits=from_logits, valid=valid)
    return dense_contrast(p, q, scale)


def _cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    align_corners: bool = True,
) -> Tensor:
    counted = labels if mask is None else torch.where(mask, labels, 255)
    return upsampled_cross_entropy(logits, counted.long(), weight, align_corners).nan_to_num(0.0)


def _pseudo_label(
    logits: Tensor,
    size: tuple[int, int],
    *,
    auxiliary: Tensor | None = None,
    view_size: tuple[int, int] | None = None,
    boxes: Tensor | None = None,
    align_corners: bool = True,
) -> tuple[Tensor, Tensor]:
    if view_size is None or boxes is None:
        probabilities = _upsampled(logits, size, align_corners).softmax(1)
        if auxiliary is not None:
            probabilities = (probabilities + _upsampled(auxiliary, size, align_corners).softmax(1)) / 2
        confidence, label = probabilities.max(1)
        return label.to(torch.uint8), confidence
    return cropped_pseudo_label(logits, view_size, boxes, size, auxiliary, align_corners)


def _upsampled(logits: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    return F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=align_corners)
