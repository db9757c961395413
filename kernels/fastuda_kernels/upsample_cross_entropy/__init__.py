"""Cross-entropy of low-resolution logits against full-size labels (paper eq. 1, 4, 7)."""

from __future__ import annotations

import torch
from torch import Tensor

from fastuda_kernels.checks import FLOATS, check_tensor
from fastuda_kernels.choice import runs_triton
from fastuda_kernels.upsample_cross_entropy import triton as fused
from fastuda_kernels.upsample_cross_entropy.reference import cross_entropy_of_upsampled

__all__ = ["upsample_cross_entropy"]


def upsample_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    ignore_index: int = 255,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    align_corners: bool = True,
) -> Tensor:
    """Mean cross-entropy after bilinear upsampling of the logits to the labels' size.

    Args:
        logits: float [B, C, H', W'], any memory format.
        labels: uint8 or int64 [B, H, W], train ids; `ignore_index` pixels do not count. Any other value
            from C on is a mistake: an error on the CPU, a NaN loss from the kernel, which cannot wait to raise.
        weight: float [B, H, W], at least 0 (which is not checked: it would wait for the GPU); multiplies a pixel's
            loss, and the mean still divides by the number of pixels that count, those of weight 0 among them. No
            gradient reaches it, and pixels that do not count may have any weight. So does DAFormer weigh
            pseudo-labels, but over all pixels, ignored ones too (mmseg's mean): its loss is this one times
            the share of pixels that count.
        mask: bool [B, H, W]; pixels that are False do not count, as if ignored.
        align_corners: as in `torch.nn.functional.interpolate` (protocol row 17: True).

    Returns:
        Scalar of float32 (float64 for float64 logits), mean over the pixels that count, 0 if none does.

    Raises:
        ValueError, TypeError: shapes, types or devices that do not fit, naming what came.
    """
    check_tensor("logits", logits, shape=(None, None, None, None), dtypes=FLOATS)
    pixels = (logits.shape[0], None, None)
    check_tensor("labels", labels, shape=pixels, dtypes=(torch.uint8, torch.int64), device=logits.device)
    if weight is not None:
        check_tensor("weight", weight, shape=labels.shape, dtypes=FLOATS, device=logits.device)
    if mask is not None:
        check_tensor("mask", mask, shape=labels.shape, dtypes=(torch.bool,), device=logits.device)
    if runs_triton(logits):
        return fused.upsample_cross_entropy(logits, labels, ignore_index, weight, mask, align_corners)
    return cross_entropy_of_upsampled(logits, labels, ignore_index, weight, mask, align_corners)
