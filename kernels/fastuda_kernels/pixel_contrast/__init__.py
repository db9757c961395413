"""Contrastive loss between two views' class probabilities (paper eq. 10, 11), in memory linear in the rows."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fastuda_kernels.checks import FLOATS, check_tensor
from fastuda_kernels.choice import runs_triton
from fastuda_kernels.pixel_contrast import triton as fused
from fastuda_kernels.pixel_contrast.reference import blockwise_contrast

__all__ = ["pixel_contrast"]

MAX_SCALE = 80.0  # exp(-MAX_SCALE) is still a normal float32, so no denominator can vanish


def pixel_contrast(
    p: Tensor,
    q: Tensor,
    scale: float = 20.0,
    *,
    from_logits: bool = False,
    valid: Tensor | None = None,
    precision: Literal["fp32", "fast"] = "fp32",
) -> Tensor:
    """Mean InfoNCE loss over the 2N rows of two views, averaged over the images.

    Row i of one view is the anchor, row i of the other view its positive, every other row of both
    views a negative; similarity is `scale` times the inner product of class probabilities
    (paper eq. 11, protocol row 13; with `valid`, eq. 10 and row 14).

    Args:
        p, q: float [B, N, C], class probabilities (or logits with `from_logits`) of the two views.
        scale: s in the paper, 0 < scale <= 80.
        from_logits: apply a softmax over C first; gradients are then with respect to the logits.
        valid: bool [B, N]; rows that are False are neither anchors, positives nor negatives.
        precision: `"fp32"` (products of fp16 halves, errs like fp32), or `"fast"` (plain fp16 products, gradient
            error of some 1e-3); the reference always computes in fp32.

    Returns:
        Scalar of float32 (float64 for float64 input): per image the mean over its valid anchors, 0
        where it has none; then the mean over the B images. Differentiable in p and q.

    Raises:
        ValueError, TypeError: shapes, types or devices that do not fit, naming what came.
    """
    check_tensor("p", p, shape=(None, None, None), dtypes=FLOATS)
    check_tensor("q", q, shape=p.shape, dtypes=(p.dtype,), device=p.device)
    if valid is not None:
        check_tensor("valid", valid, shape=p.shape[:2], dtypes=(torch.bool,), device=p.device)
    if not 0 < scale <= MAX_SCALE:
        raise ValueError(f"scale must be above 0 and at most {MAX_SCALE:g}, got {scale}")
    if precision not in ("fp32", "fast"):
        raise ValueError(f'precision must be "fp32" or "fast", got {precision!r}')
    if runs_triton(p):
        return fused.pixel_contrast(p, q, scale, valid, from_logits=from_logits, precision=precision)
    if from_logits:
        wide = p.dtype if p.dtype == torch.float64 else torch.float32
        p, q = p.softmax(-1, dtype=wide), q.softmax(-1, dtype=wide)
    return blockwise_contrast(p, q, scale, valid)
