"""Device code of BatchNorm: statistics, normalisation and gradient of channels-last rows.

B images in G groups, C channels; a group is n = B·H·W / G rows of C values, one behind the other in memory. Sums over
a group's rows are made in two steps: a program sums a split of the rows, and a finishing kernel adds the splits in
their order. Nothing is added to by two programs, so two runs agree bit for bit. What ReLU kept is a bit a value, eight
channels to a byte.

y is the result and dy its gradient; z is what ReLU sees, the sum with the residual, and dz its gradient. Where y was
given twice, dy comes in two parts.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _rows(first, BLOCK_N: tl.constexpr):
    """int64 [BLOCK_N, 1]: values of a group can be more than int32 counts."""
    return (first + tl.arange(0, BLOCK_N)).to(tl.int64)[:, None]


@triton.jit
def _channels(program, BLOCK_C: tl.constexpr):
    return program * BLOCK_C + tl.arange(0, BLOCK_C)


@triton.jit
def _block(C, BLOCK_C: tl.constexpr):
    """A program's block of rows and block of channels; programs that follow one another share rows."""
    blocks = tl.cdiv(C, BLOCK_C)
    return tl.program_id(0) // blocks, tl.program_id(0) % blocks


@triton.jit
def _values(ptr, row, c, end, C):
    """fp32 [BLOCK_N, BLOCK_C] of a group's rows before `end`, 0 from there on."""
    return tl.load(ptr + row * C + c[None, :], mask=(row < end) & (c < C)[None, :], other=0.0).to(tl.float32)


@triton.jit
def _packed(kept, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr):
    """bool [BLOCK_N, BLOCK_C] as uint8 [BLOCK_N, BLOCK_C / 8]."""
    bits = tl.reshape(kept.to(tl.int32), (BLOCK_N, BLOCK_C // 8, 8))
    return tl.sum(bits << tl.arange(0, 8)[None, None, :], 2).to(tl.uint8)


@triton.jit
def _gradient_behind_relu(
    dy_ptr,
    more_ptr,
    mask_ptr,
    row,
    c,
    byte,
    end,
    C,
    HAS_MORE: tl.constexpr,
    RELU: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """fp32 [BLOCK_N, BLOCK_C]: dy, the sum of its parts, where ReLU let a value through, else 0."""
    dy = _values(dy_ptr, row, c, end, C)
    if HAS_MORE:
        dy += _values(more_ptr, row, c, end, C)
    if RELU:
        width = (C + 7) // 8
        kept = tl.load(mask_ptr + row * width + byte[None, :], mask=(row < end) & (byte < width)[None, :], other=0)
        bits = (kept.to(tl.int32)[:, :, None] >> tl.arange(0, 8)[None, None, :]) & 1
        dy = tl.where(tl.reshape(bits, (BLOCK_N, BLOCK_C)) != 0, dy, 0.0)
    return dy


@triton.jit
def batch_norm_statistics_kernel(
    x_ptr,
    partial_ptr,
    num_rows,
    C,
    rows_a_split,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """A split's mean, as a value near it and the distance from there, and squared deviations, in [G, splits, 3, C].

    Sums are of distances from the mean of the split's first rows. That mean is of one share f of the rows, so its own
    squared distance is at most (1 - f) / f variances: what cancels is bounded, whatever the mean of the values is.
    """
    c = _channels(tl.program_id(0), BLOCK_C)
    split, group = tl.program_id(1), tl.program_id(2)
    first = split * rows_a_split
    end = tl.minimum(first + rows_a_split, num_rows)
    own = x_ptr + group.to(tl.int64) * num_rows * C
    near = tl.sum(_values(own, _rows(first, BLOCK_N), c, end, C), 0) / tl.minimum(end - first, BLOCK_N)
    total = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    squares = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    for start in range(first, end, BLOCK_N * UNROLL):
        for step in tl.static_range(UNROLL):
            row = _rows(start + step * BLOCK_N, BLOCK_N)
            distance = tl.where(row < end, _values(own, row, c, end, C) - near[None, :], 0.0)
            total += distance
            squares += distance * distance
    count = (end - first).to(tl.float32)
    moved = tl.sum(total, 0)
    at = partial_ptr + (group * tl.num_programs(1) + split) * 3 * C + c
    tl.store(at, near, mask=c < C)
    tl.store(at + C, moved / count, mask=c < C)
    tl.store(at + 2 * C, tl.maximum(tl.sum(squares, 0) - moved * moved / count, 0.0), mask=c < C)


@triton.jit
def batch_norm_finish_statistics_kernel(
    partial_ptr,
    mean_ptr,
    rstd_ptr,
    running_mean_ptr,
    running_var_ptr,
    num_batches_ptr,
    num_rows,
    C,
    rows_a_split,
    splits,
    num_groups,
    momentum,
    eps,
    HAS_COUNT: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Mean and 1 / standard deviation [G, C] from the splits; running statistics follow the groups in their order."""
    if HAS_COUNT:  # noqa: SIM102 - a compile-time question around a question of the device
        if tl.program_id(0) == 0:
            tl.store(num_batches_ptr, tl.load(num_batches_ptr) + num_groups)
    c = _channels(tl.program_id(0), BLOCK_C)
    real = c < C
    running_mean = tl.load(running_mean_ptr + c, mask=real, other=0.0)
    running_var = tl.load(running_var_ptr + c, mask=real, other=0.0)
    for group in range(num_groups):
        own = partial_ptr + group * splits * 3 * C
        # Means are added as distances from near the first: at their own size they would be rounded too far.
        near = tl.load(own + c, mask=real, other=0.0)
        total = tl.zeros((BLOCK_S, BLOCK_C), tl.float32)
        squares = tl.zeros((BLOCK_S, BLOCK_C), tl.float32)
        for start in range(0, splits, BLOCK_S):
            split = start + tl.arange(0, BLOCK_S)
            count = tl.maximum(tl.minimum(num_rows - split * rows_a_split, rows_a_split), 0).to(tl.float32)[:, None]
            inside = (split < splits)[:, None] & real[None, :]
            at = own + (split * 3 * C)[:, None] + c[None, :]
            distance = tl.load(at, mask=inside, other=0.0) - near[None, :]
            distance += tl.load(at + C, mask=inside, other=0.0)
            total += count * distance
            squares += count * distance * distance + tl.load(at + 2 * C, mask=inside, other=0.0)
        moved = tl.sum(total, 0) / num_rows
        mean = near + moved
        variance = tl.maximum(tl.sum(squares, 0) / num_rows - moved * moved, 0.0)
        tl.store(mean_ptr + group * C + c, mean, mask=real)
        tl.store(rstd_ptr + group * C + c, tl.rsqrt(variance + eps), mask=real)
        unbiased = variance * (num_rows / tl.maximum(num_rows - 1, 1))
        running_mean += momentum * (mean - running_mean)
        running_var += momentum * (unbiased - running_var)
    tl.store(running_mean_ptr + c, running_mean, mask=real)
    tl.store(running_var_ptr + c, running_var, mask=real)


@triton.jit
def batch_norm_normalise_kernel(
    x_ptr,
    residual_ptr,
    mean_ptr,
    rstd_ptr,
    weight_ptr,
    bias_ptr,
    y_ptr,
    mask_ptr,
    num_rows,
    C,
    HAS_RESIDUAL: tl.constexpr,
    RELU: tl.constexpr,
    WITH_MASK: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """A block of rows and channels of one group: normalised, weighted, the residual added, and ReLU."""
    row_block, channel_block = _block(C, BLOCK_C)
    c = _channels(channel_block, BLOCK_C)
    group, real = tl.program_id(1), c < C
    row = _rows(row_block * BLOCK_N, BLOCK_N)
    mean = tl.load(mean_ptr + group * C + c, mask=real, other=0.0)
    scale = tl.load(rstd_ptr + group * C + c, mask=real, other=0.0) * tl.load(weight_ptr + c, mask=real, other=0.0)
    bias = tl.load(bias_ptr + c, mask=real, other=0.0)
    before = group.to(tl.int64) * num_rows
    y = (_values(x_ptr + before * C, row, c, num_rows, C) - mean[None, :]) * scale[None, :] + bias[None, :]
    if HAS_RESIDUAL:
        y += _values(residual_ptr + before * C, row, c, num_rows, C)
    if RELU:
        # Asked this way round, NaN is kept, as torch keeps it.
        kept = (y <= 0) == 0
        y = tl.where(kept, y, 0.0)
        if WITH_MASK:
            width = (C + 7) // 8
            byte = _channels(channel_block, BLOCK_C // 8)
            at = mask_ptr + (before + row) * width + byte[None, :]
            tl.store(at, _packed(kept, BLOCK_N, BLOCK_C), mask=(row < num_rows) & (byte < width)[None, :])
    at = y_ptr + (before + row) * C + c[None, :]
    tl.store(at, y.to(y_ptr.dtype.element_ty), mask=(row < num_rows) & real[None, :])


@triton.jit
def batch_norm_sums_kernel(
    dy_ptr,
    more_ptr,
    x_ptr,
    mask_ptr,
    mean_ptr,
    rstd_ptr,
    dz_ptr,
    partial_ptr,
    num_rows,
    C,
    rows_a_split,
    HAS_MORE: tl.constexpr,
    RELU: tl.constexpr,
    WITH_DZ: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """A split's Σ dz and Σ dz · x̂, x̂ the normalised x: partial [G, splits, 2, C]; and dz itself, if asked for."""
    c, byte = _channels(tl.program_id(0), BLOCK_C), _channels(tl.program_id(0), BLOCK_C // 8)
    split, group = tl.program_id(1), tl.program_id(2)
    first = split * rows_a_split
    end = tl.minimum(first + rows_a_split, num_rows)
    before = group.to(tl.int64) * num_rows
    mean = tl.load(mean_ptr + group * C + c, mask=c < C, other=0.0)
    total = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    along = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    for start in range(first, end, BLOCK_N * UNROLL):
        for step in tl.static_range(UNROLL):
            row = _rows(start + step * BLOCK_N, BLOCK_N)
            dz = _gradient_behind_relu(
                dy_ptr + before * C,
                more_ptr + before * C,
                mask_ptr + before * ((C + 7) // 8),
                row,
                c,
                byte,
                end,
                C,
                HAS_MORE,
                RELU,
                BLOCK_N,
                BLOCK_C,
            )
            if WITH_DZ:  # rounded, as whoever reads it will see it
                rounded = dz.to(dz_ptr.dtype.element_ty)
                tl.store(dz_ptr + (before + row) * C + c[None, :], rounded, mask=(row < end) & (c < C)[None, :])
                dz = rounded.to(tl.float32)
            total += dz
            along += dz * (_values(x_ptr + before * C, row, c, end, C) - mean[None, :])
    rstd = tl.load(rstd_ptr + group * C + c, mask=c < C, other=0.0)
    at = partial_ptr + (group * tl.num_programs(1) + split) * 2 * C + c
    tl.store(at, tl.sum(total, 0), mask=c < C)
    tl.store(at + C, tl.sum(along, 0) * rstd, mask=c < C)


@triton.jit
def batch_norm_finish_sums_kernel(
    partial_ptr,
    sums_ptr,
    dweight_ptr,
    dbias_ptr,
    C,
    splits,
    num_groups,
    BLOCK_S: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Sums [G, 2, C] over each group's splits; over all groups they are the gradients of bias and weight."""
    c = _channels(tl.program_id(0), BLOCK_C)
    real = c < C
    dweight = tl.zeros((BLOCK_C,), tl.float32)
    dbias = tl.zeros((BLOCK_C,), tl.float32)
    for group in range(num_groups):
        total = tl.zeros((BLOCK_S, BLOCK_C), tl.float32)
        along = tl.zeros((BLOCK_S, BLOCK_C), tl.float32)
        for start in range(0, splits, BLOCK_S):
            split = start + tl.arange(0, BLOCK_S)
            inside = (split < splits)[:, None] & real[None, :]
            at = partial_ptr + ((group * splits + split) * 2 * C)[:, None] + c[None, :]
            total += tl.load(at, mask=inside, other=0.0)
            along += tl.load(at + C, mask=inside, other=0.0)
        group_dbias, group_dweight = tl.sum(total, 0), tl.sum(along, 0)
        tl.store(sums_ptr + group * 2 * C + c, group_dbias, mask=real)
        tl.store(sums_ptr + group * 2 * C + C + c, group_dweight, mask=real)
        dbias += group_dbias
        dweight += group_dweight
    tl.store(dweight_ptr + c, dweight, mask=real)
    tl.store(dbias_ptr + c, dbias, mask=real)


@triton.jit
def batch_norm_gradient_kernel(
    dy_ptr,
    x_ptr,
    mask_ptr,
    mean_ptr,
    rstd_ptr,
    weight_ptr,
    sums_ptr,
    dx_ptr,
    num_rows,
    C,
    RELU: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """dx = weight / std · (dz - mean of dz - x̂ · mean of dz · x̂), with dz made of dy, which may be dz already."""
    row_block, channel_block = _block(C, BLOCK_C)
    c, byte = _channels(channel_block, BLOCK_C), _channels(channel_block, BLOCK_C // 8)
    group, real = tl.program_id(1), c < C
    row = _rows(row_block * BLOCK_N, BLOCK_N)
    mean = tl.load(mean_ptr + group * C + c, mask=real, other=0.0)
    rstd = tl.load(rstd_ptr + group * C + c, mask=real, other=0.0)
    scale = rstd * tl.load(weight_ptr + c, mask=real, other=0.0)
    offset = scale * (tl.load(sums_ptr + group * 2 * C + c, mask=real, other=0.0) / num_rows)
    slope = scale * rstd * (tl.load(sums_ptr + group * 2 * C + C + c, mask=real, other=0.0) / num_rows)
    before = group.to(tl.int64) * num_rows
    dz = _gradient_behind_relu(
        dy_ptr + before * C,
        dy_ptr,
        mask_ptr + before * ((C + 7) // 8),
        row,
        c,
        byte,
        num_rows,
        C,
        False,
        RELU,
        BLOCK_N,
        BLOCK_C,
    )
    distance = _values(x_ptr + before * C, row, c, num_rows, C) - mean[None, :]
    dx = scale[None, :] * dz - offset[None, :] - slope[None, :] * distance
    inside = (row < num_rows) & real[None, :]
    to = (before + row) * C + c[None, :]
    tl.store(dx_ptr + to, dx.to(dx_ptr.dtype.element_ty), mask=inside)
