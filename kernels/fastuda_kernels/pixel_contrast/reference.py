"""The contrastive loss in row blocks, forward and backward, so that memory stays O(N · C).

B images, N rows a view, R = 2N rows of both views together, C classes.
With E_ij = exp(s (h_ij - 1)), h = P Pᵀ and Z_i = Σ_{j≠i} E_ij, the loss of anchor i is
log Z_i - s (h_i,pos(i) - 1), and because h is symmetric its whole gradient is one more pass:
dP_i = (s / R) [Σ_{j≠i} E_ij (1/Z_i + 1/Z_j) P_j - 2 P_pos(i)].
Probabilities make h <= 1, so the constant shift by s replaces a running maximum.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK_ROWS = 256


def blockwise_contrast(p: Tensor, q: Tensor, scale: float, valid: Tensor | None) -> Tensor:
    """Mean loss of [B, N, C] probabilities; `valid` is bool [B, N] or None. Paper eq. 10, 11."""
    wide = p.dtype if p.dtype == torch.float64 else torch.float32
    rows = torch.cat([p, q], dim=1).to(wide)
    weight = torch.ones(rows.shape[:2], dtype=wide, device=rows.device)
    if valid is not None:
        weight = torch.cat([valid, valid], dim=1).to(wide)
    loss: Tensor = _Contrast.apply(rows, weight, scale)  # type: ignore[no-untyped-call]
    return loss


class _Contrast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, scale: float) -> Tensor:
        num_images = rows.shape[0]
        partition = torch.empty_like(weight)
        for start, block, similarity in _blocks(rows, scale):
            similarity *= weight[:, None, :]
            partition[:, start : start + block] = similarity.sum(-1)
        # A row without any other valid row has an empty sum; it carries no weight, and 1 keeps its log finite.
        partition = torch.where(partition > 0, partition, 1.0)
        positive = (rows * _other_view(rows)).sum(-1)
        per_anchor = partition.log() - scale * (positive - 1)
        share = weight / (weight.sum(1, keepdim=True).clamp(min=1) * num_images)
        ctx.save_for_backward(rows, weight, partition, share)
        ctx.scale = scale
        return (per_anchor * share).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        rows, weight, partition, share = ctx.saved_tensors
        grad = torch.empty_like(rows)
        inverse = share / partition
        for start, block, similarity in _blocks(rows, ctx.scale):
            anchors = slice(start, start + block)
            # An anchor pulls on its negatives (first term) and is pulled on as theirs (second).
            pull = weight[:, None, :] * inverse[:, anchors, None] + weight[:, anchors, None] * inverse[:, None, :]
            grad[:, anchors] = torch.bmm(similarity.mul_(pull), rows)
        grad -= 2 * share[..., None] * _other_view(rows)
        return grad * (ctx.scale * grad_outputs[0]), None, None


def _blocks(rows: Tensor, scale: float) -> Any:
    """Yield (start, length, E[:, start:start+length, :]) with the diagonal zeroed."""
    num_rows = rows.shape[1]
    columns = torch.arange(num_rows, device=rows.device)
    for start in range(0, num_rows, BLOCK_ROWS):
        block = min(BLOCK_ROWS, num_rows - start)
        similarity = torch.bmm(rows[:, start : start + block], rows.transpose(1, 2))
        similarity.sub_(1).mul_(scale).exp_()
        similarity.masked_fill_(columns[start : start + block, None] == columns[None, :], 0)
        yield start, block, similarity


def _other_view(rows: Tensor) -> Tensor:
    """Row i's positive: the same position in the other half."""
    return rows.roll(rows.shape[1] // 2, dims=1)
