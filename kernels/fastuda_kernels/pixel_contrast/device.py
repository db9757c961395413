"""The contrastive loss's device code: similarities are made tile by tile, used, and never written.

B images, N positions a view, R = 2N rows of both views, C classes, K columns of a packed row. The mathematics
is `reference.py`'s; its matrix products run on tensor cores with each probability as the sum of two fp16 numbers,
P = hi + lo, so that P Pᵀ ≈ hi hiᵀ + hi loᵀ + lo hiᵀ errs like fp32. Of a row only [hi … lo …] is kept, and the
third product rides in the columns that padding to tensor-core sizes leaves free (`_column_of`).
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _column_of(third, C: tl.constexpr, HALF: tl.constexpr):
    """Where element `third` of a row's third segment lies: in the gap behind hi, then in the gap behind lo."""
    return tl.where(third < HALF - C, C + third, 2 * C + third)


@triton.jit
def _probabilities(x, is_class, FROM_LOGITS: tl.constexpr):
    if FROM_LOGITS:
        x = tl.where(is_class, x, float("-inf"))
        x = tl.exp(x - tl.max(x, 1)[:, None])
        x = x / tl.sum(x, 1)[:, None]
    return x


@triton.jit
def _pack_rows(packed_ptr, image, row, real, probability, c, R, K: tl.constexpr, C: tl.constexpr, SPLIT: tl.constexpr):
    """Store rows of [hi | … | lo | …] fp16, hi once more as the third segment; the gaps are zero already."""
    high = probability.to(tl.float16)
    base = packed_ptr + (image.to(tl.int64) * R + row)[:, None] * K
    inside = real[:, None] & (c < C)[None, :]
    tl.store(base + c[None, :], high, mask=inside)
    if SPLIT:
        low = (probability - high.to(tl.float32)).to(tl.float16)
        tl.store(base + K // 2 + c[None, :], low, mask=inside)
        tl.store(base + _column_of(c, C, K // 2)[None, :], high, mask=inside)


@triton.jit
def contrast_prepare_kernel(
    p_ptr,
    q_ptr,
    packed_ptr,
    positive_ptr,
    N,
    p_stride_image,
    p_stride_row,
    p_stride_class,
    q_stride_image,
    q_stride_row,
    q_stride_class,
    C: tl.constexpr,
    K: tl.constexpr,
    SPLIT: tl.constexpr,
    FROM_LOGITS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Both views' rows: softmax if need be, packed; and the similarity of each pair of positives, fp32 [B, N]."""
    image = tl.program_id(1)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    c = tl.arange(0, BLOCK_C)
    real = n < N
    inside = real[:, None] & (c < C)[None, :]
    long_image, row = image.to(tl.int64), n.to(tl.int64)[:, None]
    p_at = p_ptr + long_image * p_stride_image + row * p_stride_row + c[None, :] * p_stride_class
    q_at = q_ptr + long_image * q_stride_image + row * q_stride_row + c[None, :] * q_stride_class
    p = _probabilities(tl.load(p_at, mask=inside, other=0.0).to(tl.float32), (c < C)[None, :], FROM_LOGITS)
    q = _probabilities(tl.load(q_at, mask=inside, other=0.0).to(tl.float32), (c < C)[None, :], FROM_LOGITS)
    tl.store(positive_ptr + long_image * N + n, tl.sum(p * q, 1), mask=real)
    _pack_rows(packed_ptr, image, n, real, p, c, 2 * N, K, C, SPLIT)
    _pack_rows(packed_ptr, image, n + N, real, q, c, 2 * N, K, C, SPLIT)


@triton.jit
def _load_tile(packed_ptr, image, row, k, R, K: tl.constexpr):
    at = packed_ptr + (image.to(tl.int64) * R + row)[:, None] * K + k[None, :]
    return tl.load(at, mask=(row < R)[:, None] & (k < K)[None, :], other=0.0)


@triton.jit
def _load_anchors(packed_ptr, image, row, k, R, K: tl.constexpr, C: tl.constexpr, SPLIT: tl.constexpr):
    """The left operand of P Pᵀ: hi against hi, hi against lo, and lo against the third segment's hi."""
    if not SPLIT:
        return _load_tile(packed_ptr, image, row, k, R, K)
    half: tl.constexpr = K // 2
    behind_high = (k >= C) & (k < half)
    behind_low = k >= half + C
    third = tl.where(behind_high, k - C, k - 2 * C)
    is_third = (behind_high | behind_low) & (third < C)
    source = tl.where(is_third, half + third, tl.where(k >= half, k - half, k))
    filled = is_third | (k < C) | ((k >= half) & (k < half + C))
    at = packed_ptr + (image.to(tl.int64) * R + row)[:, None] * K + source[None, :]
    return tl.load(at, mask=(row < R)[:, None] & filled[None, :], other=0.0)


@triton.jit
def _similarity(
    packed_ptr,
    image,
    anchor,
    column,
    R,
    scale_log2,
    K: tl.constexpr,
    C: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """E = exp(s (h - 1)), fp32 [anchors, columns], zero on the diagonal and outside."""
    h = tl.zeros((anchor.shape[0], column.shape[0]), tl.float32)
    if K == BLOCK_K:  # no loop here lets the compiler overlap the loop over columns with its loads
        k = tl.arange(0, BLOCK_K)
        left = _load_anchors(packed_ptr, image, anchor, k, R, K, C, SPLIT)
        h = tl.dot(left, tl.trans(_load_tile(packed_ptr, image, column, k, R, K)), h)
    else:
        for start in range(0, K, BLOCK_K):
            k = start + tl.arange(0, BLOCK_K)
            left = _load_anchors(packed_ptr, image, anchor, k, R, K, C, SPLIT)
            h = tl.dot(left, tl.trans(_load_tile(packed_ptr, image, column, k, R, K)), h)
    other = (anchor[:, None] != column[None, :]) & (column < R)[None, :]
    return tl.where(other, tl.exp2((h - 1.0) * scale_log2), 0.0)


@triton.jit
def _weight_of(valid_ptr, image, row, N, HAS_VALID: tl.constexpr):
    """1 for rows that take part, fp32; the validity of a position is that of its row in both views."""
    real = row < 2 * N
    if HAS_VALID:
        position = tl.where(row < N, row, row - N)
        return tl.load(valid_ptr + image.to(tl.int64) * N + position, mask=real, other=0).to(tl.float32)
    return real.to(tl.float32)


@triton.jit
def contrast_partition_kernel(
    packed_ptr,
    valid_ptr,
    partial_ptr,
    N,
    columns_a_split,
    scale_log2,
    K: tl.constexpr,
    C: tl.constexpr,
    SPLIT: tl.constexpr,
    HAS_VALID: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Each row's Σ_j E_ij over one share of the columns: partial fp32 [splits, B, R]."""
    image, split, R = tl.program_id(2), tl.program_id(1), 2 * N
    anchor = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    total = tl.zeros((BLOCK_R,), tl.float32)
    first = split * columns_a_split
    for start in range(first, tl.minimum(first + columns_a_split, R), BLOCK_J):
        column = start + tl.arange(0, BLOCK_J)
        e = _similarity(packed_ptr, image, anchor, column, R, scale_log2, K, C, SPLIT, BLOCK_K)
        if HAS_VALID:
            e = e * _weight_of(valid_ptr, image, column, N, HAS_VALID)[None, :]
        total += tl.sum(e, 1)
    at = (split.to(tl.int64) * tl.num_programs(2) + image) * R + anchor
    tl.store(partial_ptr + at, total, mask=anchor < R)


@triton.jit
def contrast_loss_kernel(
    partial_ptr,
    positive_ptr,
    valid_ptr,
    inverse_ptr,
    loss_ptr,
    share_ptr,
    N,
    scale,
    SPLITS: tl.constexpr,
    HAS_VALID: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """An image's loss, w / Z of its rows, and the weight 1 / (valid rows · B) of each; one program an image."""
    image, num_images, R = tl.program_id(0), tl.num_programs(0), 2 * N
    total = tl.zeros((BLOCK_R,), tl.float32)
    count = tl.zeros((BLOCK_R,), tl.float32)
    for start in range(0, R, BLOCK_R):
        row = start + tl.arange(0, BLOCK_R)
        real = row < R
        z = tl.zeros((BLOCK_R,), tl.float32)
        for split in tl.static_range(SPLITS):
            at = (split * num_images + image).to(tl.int64) * R + row
            z += tl.load(partial_ptr + at, mask=real, other=0.0)
        # A row without any other valid row has an empty sum; 1 keeps its log finite and its pull zero.
        z = tl.where(z > 0, z, 1.0)
        weight = _weight_of(valid_ptr, image, row, N, HAS_VALID)
        position = tl.where(row < N, row, row - N)
        positive = tl.load(positive_ptr + image.to(tl.int64) * N + position, mask=real, other=1.0)
        total += weight * (tl.log(z) - scale * (positive - 1.0))
        count += weight
        tl.store(inverse_ptr + image.to(tl.int64) * R + row, weight / z, mask=real)
    share = 1.0 / (tl.maximum(tl.sum(count), 1.0) * num_images)
    tl.store(loss_ptr + image, tl.sum(total) * share)
    tl.store(share_ptr + image, share)


@triton.jit
def contrast_gradient_kernel(
    packed_ptr,
    valid_ptr,
    inverse_ptr,
    partial_ptr,
    N,
    columns_a_split,
    scale_log2,
    K: tl.constexpr,
    C: tl.constexpr,
    SPLIT: tl.constexpr,
    HAS_VALID: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PULL: tl.constexpr,
):
    """Σ_j E_ij (w_j w_i/Z_i + w_i w_j/Z_j) P_j over one share of the columns, times PULL: fp32 [splits, B, R, C].

    No entry of the matrix exceeds 2, and 2 · PULL is within fp16; PULL lifts small ones over its subnormals.
    """
    image, R = tl.program_id(2), 2 * N
    chunks: tl.constexpr = (C + BLOCK_C - 1) // BLOCK_C
    split = tl.program_id(1) // chunks
    c = (tl.program_id(1) % chunks) * BLOCK_C + tl.arange(0, BLOCK_C)
    anchor = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    own_weight = _weight_of(valid_ptr, image, anchor, N, HAS_VALID)[:, None]
    rows = inverse_ptr + image.to(tl.int64) * R
    own_inverse = tl.load(rows + anchor, mask=anchor < R, other=0.0)[:, None]
    pulled = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    first = split * columns_a_split
    for start in range(first, tl.minimum(first + columns_a_split, R), BLOCK_J):
        column = start + tl.arange(0, BLOCK_J)
        e = _similarity(packed_ptr, image, anchor, column, R, scale_log2, K, C, SPLIT, BLOCK_K)
        inverse = tl.load(rows + column, mask=column < R, other=0.0)[None, :]
        weight = _weight_of(valid_ptr, image, column, N, HAS_VALID)[None, :]
        pull = e * (weight * own_inverse + own_weight * inverse) * PULL
        pull_high = pull.to(tl.float16)
        high = _load_tile(packed_ptr, image, column, c, R, K)
        pulled = tl.dot(pull_high, high, pulled)
        if SPLIT:
            low = _load_tile(packed_ptr, image, column, K // 2 + c, R, K)
            pulled = tl.dot(pull_high, low, pulled)
            pulled = tl.dot((pull - pull_high.to(tl.float32)).to(tl.float16), high, pulled)
    at = ((split.to(tl.int64) * tl.num_programs(2) + image) * R + anchor)[:, None] * C + c[None, :]
    tl.store(partial_ptr + at, pulled, mask=(anchor < R)[:, None] & (c < C)[None, :])


@triton.jit
def _load_probabilities(packed_ptr, image, row, real, c, R, K: tl.constexpr, C: tl.constexpr, SPLIT: tl.constexpr):
    inside = real[:, None] & (c < C)[None, :]
    base = packed_ptr + (image.to(tl.int64) * R + row)[:, None] * K + c[None, :]
    p = tl.load(base, mask=inside, other=0.0).to(tl.float32)
    if SPLIT:
        p += tl.load(base + K // 2, mask=inside, other=0.0).to(tl.float32)
    return p


@triton.jit
def _row_gradient(
    partial_ptr, image, row, real, own, positive, weight, c, R, PULL, SPLITS: tl.constexpr, C: tl.constexpr,
    FROM_LOGITS: tl.constexpr,
):  # fmt: skip
    inside = real[:, None] & (c < C)[None, :]
    gradient = -2.0 * weight[:, None] * positive
    for split in tl.static_range(SPLITS):
        at = ((split * tl.num_programs(1) + image).to(tl.int64) * R + row)[:, None] * C + c[None, :]
        gradient += tl.load(partial_ptr + at, mask=inside, other=0.0) / PULL
    if FROM_LOGITS:
        gradient = own * (gradient - tl.sum(gradient * own, 1)[:, None])
    return gradient


@triton.jit
def contrast_finish_kernel(
    partial_ptr,
    packed_ptr,
    valid_ptr,
    share_ptr,
    upstream_ptr,
    grad_p_ptr,
    grad_q_ptr,
    N,
    scale,
    C: tl.constexpr,
    K: tl.constexpr,
    SPLIT: tl.constexpr,
    SPLITS: tl.constexpr,
    FROM_LOGITS: tl.constexpr,
    HAS_VALID: tl.constexpr,
    PULL: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Sum the shares, pull towards the positive, go back through the softmax: gradients [B, N, C] of both views."""
    image, R = tl.program_id(1), 2 * N
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    c = tl.arange(0, BLOCK_C)
    real = n < N
    factor = tl.load(share_ptr + image) * tl.load(upstream_ptr) * scale
    p = _load_probabilities(packed_ptr, image, n, real, c, R, K, C, SPLIT)
    q = _load_probabilities(packed_ptr, image, n + N, real, c, R, K, C, SPLIT)
    weight = tl.where(real, _weight_of(valid_ptr, image, n, N, HAS_VALID), 0.0)
    grad_p = _row_gradient(partial_ptr, image, n, real, p, q, weight, c, R, PULL, SPLITS, C, FROM_LOGITS)
    grad_q = _row_gradient(partial_ptr, image, n + N, real, q, p, weight, c, R, PULL, SPLITS, C, FROM_LOGITS)
    at = (image.to(tl.int64) * N + n)[:, None] * C + c[None, :]
    inside = real[:, None] & (c < C)[None, :]
    tl.store(grad_p_ptr + at, (grad_p * factor).to(grad_p_ptr.dtype.element_ty), mask=inside)
    tl.store(grad_q_ptr + at, (grad_q * factor).to(grad_q_ptr.dtype.element_ty), mask=inside)
