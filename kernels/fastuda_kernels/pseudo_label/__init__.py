"""From low-resolution logits to full-size labels: pseudo-labels for crops, confusion matrices for evaluation."""

from __future__ import annotations

import torch
from torch import Tensor

from fastuda_kernels.checks import FLOATS, check_tensor
from fastuda_kernels.choice import runs_triton
from fastuda_kernels.pseudo_label import triton as fused
from fastuda_kernels.pseudo_label.reference import confusion_of_upsampled, label_of_upsampled

__all__ = ["argmax_confusion", "pseudo_label"]


def pseudo_label(
    logits: Tensor,
    size: tuple[int, int],
    *,
    auxiliary: Tensor | None = None,
    view_size: tuple[int, int] | None = None,
    boxes: Tensor | None = None,
    flip: Tensor | None = None,
    align_corners: bool = True,
) -> tuple[Tensor, Tensor]:
    """Class and confidence of each pixel of the image, or of a crop of it, straight from low-resolution logits.

    The logits are read as covering a view, corners aligned (protocol row 17) or not. A crop's pixel
    centres are mapped into the view and the logits are interpolated bilinearly there, so the
    full-size map is never made (protocol rows 2, 3, 5).

    Args:
        logits: float [B, C, H', W'].
        size: height and width of the result.
        auxiliary: float [B, C, H', W'], a second head; the two softmaxes are averaged (protocol row 16).
        view_size: height and width in pixels of the view the logits cover; needed with `boxes`.
        boxes: float [B, 4] of (top, left, height, width) in view pixels; None: the whole view.
        flip: bool [B]; mirror the result of these images left to right.
        align_corners: as in `torch.nn.functional.interpolate` from the logits' size to the view's.

    Returns:
        label uint8 [B, H, W] and confidence float32 [B, H, W] (the largest probability).

    Raises:
        ValueError, TypeError: shapes, types or devices that do not fit, naming what came.
    """
    check_tensor("logits", logits, shape=(None, None, None, None), dtypes=FLOATS)
    if auxiliary is not None:
        check_tensor("auxiliary", auxiliary, shape=logits.shape, dtypes=FLOATS, device=logits.device)
    if boxes is not None:
        check_tensor("boxes", boxes, shape=(logits.shape[0], 4), dtypes=FLOATS, device=logits.device)
        if view_size is None:
            raise ValueError("boxes are in pixels of the view: give view_size=(height, width) too")
    if flip is not None:
        check_tensor("flip", flip, shape=(logits.shape[0],), dtypes=(torch.bool,), device=logits.device)
    if runs_triton(logits):
        return fused.pseudo_label(logits, size, auxiliary, view_size, boxes, flip, align_corners)
    return label_of_upsampled(logits, size, auxiliary, view_size, boxes, flip, align_corners)


def argmax_confusion(logits: Tensor, labels: Tensor, *, ignore_index: int = 255, align_corners: bool = True) -> Tensor:
    """Confusion matrix of upsampled, arg-maxed logits against full-size labels (protocol row 23).

    Args:
        logits: float [B, C, H', W'].
        labels: uint8 [B, H, W]; `ignore_index` and values from C on do not count.
        align_corners: as in `torch.nn.functional.interpolate` (protocol row 17: True).

    Returns:
        int64 [C, C]; entry (i, j) counts pixels of class i predicted as j.

    Raises:
        ValueError, TypeError: shapes, types or devices that do not fit, naming what came.
    """
    check_tensor("logits", logits, shape=(None, None, None, None), dtypes=FLOATS)
    pixels = (logits.shape[0], None, None)
    check_tensor("labels", labels, shape=pixels, dtypes=(torch.uint8,), device=logits.device)
    if runs_triton(logits):
        return fused.argmax_confusion(logits, labels, ignore_index, align_corners)
    return confusion_of_upsampled(logits, labels, ignore_index, align_corners)
