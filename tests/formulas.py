"""The operations as dense formulas of a few lines, slow and plain: what kernels and references are held to."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def dense_contrast(p: Tensor, q: Tensor, scale: float, valid: Tensor | None = None) -> Tensor:
    """Equation 11 as printed: the whole 2N × 2N matrix of each image's valid rows, in the dtype that comes."""
    losses = []
    for image in range(len(p)):
        counted = torch.ones(p.shape[1], dtype=torch.bool) if valid is None else valid[image]
        rows = torch.cat([p[image][counted], q[image][counted]])
        num_rows = len(rows)
        if num_rows == 0:
            losses.append(p[image].sum() * 0)
            continue
        similarity = scale * (rows @ rows.T)
        positive = torch.arange(num_rows).roll(num_rows // 2)
        others = similarity.masked_fill(torch.eye(num_rows, dtype=torch.bool), -math.inf)
        losses.append((others.logsumexp(1) - similarity[torch.arange(num_rows), positive]).mean())
    return torch.stack(losses).mean()


def probabilities(*shape: int, seed: int = 0, sharpness: float = 1.0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(*shape, generator=generator, dtype=torch.float64)).softmax(-1).to(dtype)


def bilinear_weights(low: int, full: int, align_corners: bool) -> Tensor:
    """fp64 [full, low]: the share of each low-resolution position in each output pixel of one axis."""
    weights = torch.zeros(full, low, dtype=torch.float64)
    for pixel in range(full):
        if align_corners:
            coordinate = pixel * (low - 1) / (full - 1) if full > 1 else 0.0
        else:
            coordinate = max((pixel + 0.5) * low / full - 0.5, 0.0)
        left = min(math.floor(coordinate), low - 1)
        right = min(left + 1, low - 1)
        weights[pixel, left] += 1 - (coordinate - left)
        weights[pixel, right] += coordinate - left
    return weights


def dense_cross_entropy(
    logits: Tensor, labels: Tensor, counted: Tensor, weight: Tensor | None, align_corners: bool
) -> Tensor:
    """Sum of weight · (log Σ exp z − z_label) over counted pixels, divided by their number."""
    rows = bilinear_weights(logits.shape[2], labels.shape[1], align_corners)
    columns = bilinear_weights(logits.shape[3], labels.shape[2], align_corners)
    full = rows @ logits.double() @ columns.T
    own = full.gather(1, labels.long().where(counted, 0)[:, None])[:, 0]
    per_pixel = full.logsumexp(1) - own
    if weight is not None:
        per_pixel = per_pixel * weight
    return per_pixel[counted].sum() / counted.sum()


def batch_norm_passes(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    *,
    momentum: float,
    eps: float,
    num_groups: int,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """torch's BatchNorm a group of images, one pass after another, then the sum, then ReLU, each in x's type."""
    passes = [
        F.batch_norm(group, running_mean, running_var, weight, bias, training=True, momentum=momentum, eps=eps)
        for group in x.chunk(num_groups)
    ]
    y = torch.cat(passes)
    y = y if residual is None else y + residual
    return y.relu() if relu else y


def errs_no_more_than(actual: Tensor, eager: Tensor, exact: Tensor, *, eps: float) -> None:
    """The kernel may err twice as much as eager in the same precision, plus eight of its rounding steps `eps`."""
    exact = exact.double()
    size = float(exact.abs().max())
    allowed = 2 * float((eager.double() - exact).abs().max()) + 8 * eps * size
    error = float((actual.double() - exact).abs().max())
    assert error <= allowed, f"error {error:.2e}, allowed {allowed:.2e}, largest value {size:.2e}"
