"""The contrastive loss of some rows among many more: anchors of one process, negatives of all, in blocks.

B images, A anchors, M rows of which the anchors are A neighbours, C classes. Memory is that of a block of anchors
against all rows, so it grows with M alone. With E_ij = exp(s (h_ij - 1)) and Z_i = Σ_{j≠i} E_ij over all M rows, the
loss of anchor i is log Z_i - s (h_i,pos(i) - 1), and its gradient reaches i, its positive and every row j.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastuda_kernels.checks import FLOATS, check_tensor

BLOCK_ROWS = 256


def contrast_among(anchors: Tensor, rows: Tensor, first: int, scale: float, valid: Tensor | None = None) -> Tensor:
    """Mean InfoNCE loss of `anchors` with every other one of `rows` as a negative, averaged over the images.

    Plain operations on any device, in blocks; `pixel_contrast` is the same, and faster, where the rows are the anchors.

    Args:
        anchors: float [B, A, C], class probabilities of two views, one behind the other; anchor i's positive is the
            one A / 2 further, or before.
        rows: the same type, [B, M, C], of which `anchors` are those from `first` on; its gradients are apart from
            theirs.
        first: where the anchors are among the rows.
        scale: s in the paper, above 0.
        valid: bool [B, M]; rows that are False are neither anchors, positives nor negatives.

    Returns:
        Scalar of float32 (float64 for float64 input): per image the mean over its valid anchors, 0 where it has none;
        then the mean over the images.

    Raises:
        ValueError, TypeError: shapes, types or devices that do not fit, naming what came.
    """
    check_tensor("anchors", anchors, shape=(None, None, None), dtypes=FLOATS)
    num_images, num_anchors, num_classes = anchors.shape
    check_tensor("rows", rows, shape=(num_images, None, num_classes), dtypes=(anchors.dtype,), device=anchors.device)
    if valid is not None:
        check_tensor("valid", valid, shape=rows.shape[:2], dtypes=(torch.bool,), device=anchors.device)
    if num_anchors % 2 or not 0 <= first <= rows.shape[1] - num_anchors:
        raise ValueError(f"{num_anchors} anchors from {first} on are no two views among {rows.shape[1]} rows")
    if scale <= 0:
        raise ValueError(f"scale must be above 0, got {scale}")
    wide = anchors.dtype if anchors.dtype == torch.float64 else torch.float32
    weight = anchors.new_ones(rows.shape[:2], dtype=wide) if valid is None else valid.to(wide)
    loss: Tensor = _Among.apply(anchors.to(wide), rows.to(wide), weight, first, scale)  # type: ignore[no-untyped-call]
    return loss


class _Among(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchors: Tensor, rows: Tensor, weight: Tensor, first: int, scale: float) -> Tensor:
        num_images, num_anchors, _ = anchors.shape
        partition = anchors.new_empty((num_images, num_anchors))
        for own, similarity in _blocks(anchors, rows, weight, first, scale):
            partition[:, own] = similarity.sum(-1)
        # An anchor without any other valid row has an empty sum; it carries no weight, and 1 keeps its log finite.
        partition = torch.where(partition > 0, partition, 1.0)
        per_anchor = partition.log() - scale * ((anchors * _other_view(anchors)).sum(-1) - 1)
        own_weight = weight[:, first : first + num_anchors]
        share = own_weight / (own_weight.sum(1, keepdim=True).clamp(min=1) * num_images)
        ctx.save_for_backward(anchors, rows, weight, partition, share)
        ctx.first, ctx.scale = first, scale
        return (per_anchor * share).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        anchors, rows, weight, partition, share = ctx.saved_tensors
        of_anchors, of_rows = torch.empty_like(anchors), torch.zeros_like(rows)
        for own, similarity in _blocks(anchors, rows, weight, ctx.first, ctx.scale):
            pull = similarity.mul_((share[:, own] / partition[:, own])[..., None])
            of_anchors[:, own] = torch.bmm(pull, rows)
            of_rows += torch.bmm(pull.transpose(1, 2), anchors[:, own])
        of_anchors -= share[..., None] * _other_view(anchors) + _other_view(share[..., None] * anchors)
        upstream = ctx.scale * grad_outputs[0]
        return of_anchors * upstream, of_rows * upstream, None, None, None


def _blocks(anchors: Tensor, rows: Tensor, weight: Tensor, first: int, scale: float) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of anchors, and E of each [B, block, M], weighted, without an anchor's own."""
    places = torch.arange(rows.shape[1], device=rows.device)
    for start in range(0, anchors.shape[1], BLOCK_ROWS):
        own = slice(start, min(start + BLOCK_ROWS, anchors.shape[1]))
        similarity = torch.bmm(anchors[:, own], rows.transpose(1, 2)).sub_(1).mul_(scale).exp_()
        similarity.masked_fill_(places[first + own.start : first + own.stop, None] == places[None, :], 0)
        yield own, similarity.mul_(weight[:, None, :])


def _other_view(rows: Tensor) -> Tensor:
    """Row i's positive: the same position in the other half."""
    return rows.roll(rows.shape[1] // 2, dims=1)
