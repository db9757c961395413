"""The contrastive loss as an operator: launches of `device.py`, backward, and what is kept between the two."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
from torch import Tensor

from fastuda_kernels.operators import kernel_op, launch, num_multiprocessors, wrap_triton
from fastuda_kernels.pixel_contrast.device import (
    contrast_finish_kernel,
    contrast_gradient_kernel,
    contrast_loss_kernel,
    contrast_partition_kernel,
    contrast_prepare_kernel,
)

BLOCK_ROWS = 64
BLOCK_COLUMNS = 64
BLOCK_K = 64
MAX_SPLITS = 4
"""Shares of the columns at most: each costs a gradient's worth of memory."""

_ELEMENTS = 2048
_ROWS_A_STEP = 1024
_PULL = 1024.0
"""Lifts the gradient's matrix, whose entries lie between 0 and 2, over fp16's subnormals."""

_LOG2_E = math.log2(math.e)


def _row_blocks(num_classes: int) -> dict[str, int]:
    """Tile of positions by classes in the kernels that look at each row once."""
    block_c = triton.next_power_of_2(num_classes)
    return {"BLOCK_N": min(64, max(1, _ELEMENTS // block_c)), "BLOCK_C": block_c}


def _packed_columns(num_classes: int, split: bool) -> int:
    """K: two halves of a power of two, wide enough that the third segment fits into what hi and lo leave free."""
    half: int = triton.next_power_of_2(max(16, num_classes if not split else math.ceil(1.5 * num_classes)))
    return max(32, 2 * half if split else half)


def _splits(num_images: int, num_rows: int, device: torch.device) -> tuple[int, int]:
    """Into how many shares the columns go, so that a few programs wait for every multiprocessor; columns a share."""
    programs = num_images * triton.cdiv(num_rows, BLOCK_ROWS)
    splits = min(MAX_SPLITS, max(1, triton.cdiv(4 * num_multiprocessors(device), programs)))
    columns = triton.cdiv(triton.cdiv(num_rows, splits), BLOCK_COLUMNS) * BLOCK_COLUMNS
    return triton.cdiv(num_rows, columns), columns


def _forward_shapes(
    p: Tensor, q: Tensor, valid: Tensor | None, scale: float, from_logits: bool, split: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    num_images, num_positions, num_classes = p.shape
    rows = (num_images, 2 * num_positions)
    return (
        p.new_empty((), dtype=torch.float32),
        p.new_empty((*rows, _packed_columns(num_classes, split)), dtype=torch.float16),
        p.new_empty(rows, dtype=torch.float32),
        p.new_empty(num_images, dtype=torch.float32),
    )


@kernel_op("fastuda::pixel_contrast", _forward_shapes)
def contrast_forward(
    p: Tensor, q: Tensor, valid: Tensor | None, scale: float, from_logits: bool, split: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss (fp32 scalar), packed rows [B, R, K] fp16, w / Z [B, R] and each image's row weight [B], fp32."""
    num_images, num_positions, num_classes = p.shape
    num_rows, columns = 2 * num_positions, _packed_columns(num_classes, split)
    packed = torch.zeros((num_images, num_rows, columns), dtype=torch.float16, device=p.device)
    positive = p.new_empty((num_images, num_positions), dtype=torch.float32)
    blocks = _row_blocks(num_classes)
    launch(
        wrap_triton(contrast_prepare_kernel),
        (triton.cdiv(num_positions, blocks["BLOCK_N"]), num_images),
        p, q, packed, positive, num_positions, *p.stride(), *q.stride(),
        C=num_classes, K=columns, SPLIT=split, FROM_LOGITS=from_logits, **blocks,
    )  # fmt: skip
    splits, columns_a_split = _splits(num_images, num_rows, p.device)
    partial = p.new_empty((splits, num_images, num_rows), dtype=torch.float32)
    has_valid = valid is not None
    valid_or_any = packed if valid is None else valid
    launch(
        wrap_triton(contrast_partition_kernel),
        (triton.cdiv(num_rows, BLOCK_ROWS), splits, num_images),
        packed, valid_or_any, partial, num_positions, columns_a_split, scale * _LOG2_E,
        K=columns, C=num_classes, SPLIT=split, HAS_VALID=has_valid,
        BLOCK_R=BLOCK_ROWS, BLOCK_J=BLOCK_COLUMNS, BLOCK_K=min(BLOCK_K, columns),
    )  # fmt: skip
    inverse = p.new_empty((num_images, num_rows), dtype=torch.float32)
    losses = p.new_empty(num_images, dtype=torch.float32)
    share = p.new_empty(num_images, dtype=torch.float32)
    launch(
        wrap_triton(contrast_loss_kernel),
        (num_images,),
        partial, positive, valid_or_any, inverse, losses, share, num_positions, scale,
        SPLITS=splits, HAS_VALID=has_valid, BLOCK_R=_ROWS_A_STEP,
    )  # fmt: skip
    return losses.sum(), packed, inverse, share


def _backward_shapes(
    upstream: Tensor, p: Tensor, packed: Tensor, inverse: Tensor, share: Tensor, valid: Tensor | None,
    scale: float, from_logits: bool, split: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return p.new_empty(p.shape), p.new_empty(p.shape)


@kernel_op("fastuda::pixel_contrast_backward", _backward_shapes)
def contrast_backward(
    upstream: Tensor, p: Tensor, packed: Tensor, inverse: Tensor, share: Tensor, valid: Tensor | None,
    scale: float, from_logits: bool, split: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients [B, N, C] in p's dtype from what the forward kept; of `p` only shape, dtype and device are used."""
    num_images, num_positions, num_classes = p.shape
    num_rows, columns = 2 * num_positions, packed.shape[2]
    splits, columns_a_split = _splits(num_images, num_rows, p.device)
    block_c = min(32, columns // 2 if split else columns)
    partial = p.new_empty((splits, num_images, num_rows, num_classes), dtype=torch.float32)
    has_valid = valid is not None
    valid_or_any = packed if valid is None else valid
    launch(
        wrap_triton(contrast_gradient_kernel),
        (triton.cdiv(num_rows, BLOCK_ROWS), splits * triton.cdiv(num_classes, block_c), num_images),
        packed, valid_or_any, inverse, partial, num_positions, columns_a_split, scale * _LOG2_E,
        K=columns, C=num_classes, SPLIT=split, HAS_VALID=has_valid,
        BLOCK_R=BLOCK_ROWS, BLOCK_J=BLOCK_COLUMNS, BLOCK_K=min(BLOCK_K, columns), BLOCK_C=block_c, PULL=_PULL,
    )  # fmt: skip
    grad_p, grad_q = p.new_empty(p.shape), p.new_empty(p.shape)
    blocks = _row_blocks(num_classes)
    launch(
        wrap_triton(contrast_finish_kernel),
        (triton.cdiv(num_positions, blocks["BLOCK_N"]), num_images),
        partial, packed, valid_or_any, share, upstream, grad_p, grad_q, num_positions, scale,
        C=num_classes, K=columns, SPLIT=split, SPLITS=splits, FROM_LOGITS=from_logits, HAS_VALID=has_valid,
        PULL=_PULL, **blocks,
    )  # fmt: skip
    return grad_p, grad_q


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    p, _, valid, ctx.scale, ctx.from_logits, ctx.split = inputs
    _, packed, inverse, share = output
    ctx.set_materialize_grads(False)  # or backward would be handed zeros for what only it reads
    ctx.mark_non_differentiable(packed, inverse, share)
    ctx.save_for_backward(p, packed, inverse, share, *(() if valid is None else (valid,)))


def _backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    p, packed, inverse, share, *valid = ctx.saved_tensors
    grad_p, grad_q = contrast_backward(
        upstream.contiguous(), p, packed, inverse, share, valid[0] if valid else None,
        ctx.scale, ctx.from_logits, ctx.split,
    )  # fmt: skip
    return grad_p, grad_q, None, None, None, None


contrast_forward.register_autograd(_backward, setup_context=_keep)


def pixel_contrast(
    p: Tensor, q: Tensor, scale: float, valid: Tensor | None, *, from_logits: bool, precision: str
) -> Tensor:
    """The loss of `fastuda_kernels.pixel_contrast.pixel_contrast`, whose checks its arguments have passed."""
    kept = None if valid is None else valid.contiguous()
    loss: Tensor = contrast_forward(p, q, kept, float(scale), from_logits, precision == "fp32")[0]
    return loss
