"""BatchNorm as operators: statistics, which move the running ones, and normalisation, which has a gradient.

They are two because an operator with a gradient may not change its arguments. The gradient runs through the
statistics all the same: the backward of the second adds what a change of x does to them. A result that is given twice
comes back as two gradients, added where they are read: autograd would write their sum first and read it again.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd import Function

from fastuda_kernels.batch_norm.device import (
    batch_norm_finish_statistics_kernel,
    batch_norm_finish_sums_kernel,
    batch_norm_gradient_kernel,
    batch_norm_normalise_kernel,
    batch_norm_statistics_kernel,
    batch_norm_sums_kernel,
)
from fastuda_kernels.operators import kernel_op, launch, num_multiprocessors, wrap_triton

_BLOCK_CHANNELS = 256
"""Channels of a tile at most: their bits are 32 bytes of the mask, the least that memory moves."""
_ELEMENTS = 4096
"""Of a tile that a program looks at once."""
_SUMMED_ELEMENTS = 2048
"""Of a tile that a program adds up in registers, step after step."""
_STATISTICS_STEPS = 4
_SUMS_STEPS = 2
"""Tiles whose loads are under way together."""
_PROGRAMS_A_MULTIPROCESSOR = 4
"""As many as its registers hold at once."""
_FINISH_CHANNELS = 16
_FINISH_SPLITS = 128
"""Tile of the finishing kernels: half a line of memory each, and few steps, for nothing hides their waiting."""


def _tile(num_channels: int, elements: int) -> dict[str, int]:
    """Rows by channels, of whole bytes of the mask."""
    block_c = min(_BLOCK_CHANNELS, max(8, triton.next_power_of_2(num_channels)))
    if num_channels % 8 != 0:  # rows that are not aligned cost an address a value, and registers to hold it
        elements //= 4
    return {"BLOCK_N": elements // block_c, "BLOCK_C": block_c}


def _split(x: Tensor, num_groups: int, steps: int) -> tuple[int, int, dict[str, int]]:
    """Splits of a group's rows, so that every multiprocessor has a few programs; rows a split; their tile."""
    num_channels, num_rows = x.shape[1], _num_rows(x, num_groups)
    tile = _tile(num_channels, _SUMMED_ELEMENTS)
    programs = num_groups * triton.cdiv(num_channels, tile["BLOCK_C"])
    wanted = max(1, _PROGRAMS_A_MULTIPROCESSOR * num_multiprocessors(x.device) // programs)
    step = steps * tile["BLOCK_N"]
    rows_a_split = triton.cdiv(triton.cdiv(num_rows, wanted), step) * step
    return triton.cdiv(num_rows, rows_a_split), rows_a_split, tile


def _num_rows(x: Tensor, num_groups: int) -> int:
    return x.shape[0] // num_groups * x.shape[2] * x.shape[3]


def _finish_blocks(splits: int) -> dict[str, int]:
    return {"BLOCK_S": min(_FINISH_SPLITS, triton.next_power_of_2(splits)), "BLOCK_C": _FINISH_CHANNELS}


def _statistics_shapes(
    x: Tensor, running_mean: Tensor, running_var: Tensor, num_batches_tracked: Tensor | None, num_groups: int,
    momentum: float, eps: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    groups = (num_groups, x.shape[1])
    return x.new_empty(groups, dtype=torch.float32), x.new_empty(groups, dtype=torch.float32)


@kernel_op(
    "fastuda::batch_norm_statistics",
    _statistics_shapes,
    mutates_args=("running_mean", "running_var", "num_batches_tracked"),
)
def statistics(
    x: Tensor, running_mean: Tensor, running_var: Tensor, num_batches_tracked: Tensor | None, num_groups: int,
    momentum: float, eps: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Mean and 1 / sqrt(variance + eps) of each group [G, C], fp32, of channels-last x; no gradient.

    The running statistics, fp32 [C], are moved in place, and G is added to `num_batches_tracked`, an int64 scalar.
    """
    mean, rstd = _statistics_shapes(x, running_mean, running_var, num_batches_tracked, num_groups, momentum, eps)
    num_channels, num_rows = x.shape[1], _num_rows(x, num_groups)
    splits, rows_a_split, tile = _split(x, num_groups, _STATISTICS_STEPS)
    partial = mean.new_empty((num_groups, splits, 3, num_channels))
    launch(
        wrap_triton(batch_norm_statistics_kernel),
        (triton.cdiv(num_channels, tile["BLOCK_C"]), splits, num_groups),
        x, partial, num_rows, num_channels, rows_a_split, UNROLL=_STATISTICS_STEPS, **tile,
    )  # fmt: skip
    launch(
        wrap_triton(batch_norm_finish_statistics_kernel),
        (triton.cdiv(num_channels, _FINISH_CHANNELS),),
        partial, mean, rstd, running_mean, running_var, mean if num_batches_tracked is None else num_batches_tracked,
        num_rows, num_channels, rows_a_split, splits, num_groups, momentum, eps,
        HAS_COUNT=num_batches_tracked is not None, **_finish_blocks(splits),
    )  # fmt: skip
    return mean, rstd


def _empty_nhwc(x: Tensor) -> Tensor:
    """Like x, channels-last, by way of a view.

    torch's compiler lays out `torch.empty(memory_format=…)` as NCHW and copies that, empty as it is, into NHWC.
    """
    num_images, num_channels, height, width = x.shape
    return x.new_empty((num_images, height, width, num_channels)).permute(0, 3, 1, 2)


def _mask(x: Tensor, with_mask: bool) -> Tensor:
    """uint8, a row a position and a bit a channel; empty where none is wanted."""
    num_images, num_channels, height, width = x.shape
    size = (num_images * height * width, triton.cdiv(num_channels, 8)) if with_mask else (0,)
    return x.new_empty(size, dtype=torch.uint8)


def _normalise_shapes(
    x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None,
    relu: bool, with_mask: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return _empty_nhwc(x), _mask(x, with_mask)


@kernel_op("fastuda::batch_norm", _normalise_shapes)
def normalise(
    x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None,
    relu: bool, with_mask: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The result, like x, and where ReLU let values through (uint8, see `_mask`); x and residual channels-last."""
    y, mask = _normalise_shapes(x, mean, rstd, weight, bias, residual, relu, with_mask)
    num_groups, num_channels = mean.shape
    num_rows = _num_rows(x, num_groups)
    tile = _tile(num_channels, _ELEMENTS)
    launch(
        wrap_triton(batch_norm_normalise_kernel),
        (triton.cdiv(num_rows, tile["BLOCK_N"]) * triton.cdiv(num_channels, tile["BLOCK_C"]), num_groups),
        x, x if residual is None else residual, mean, rstd, weight, bias, y, mask, num_rows, num_channels,
        HAS_RESIDUAL=residual is not None, RELU=relu, WITH_MASK=with_mask, **tile,
    )  # fmt: skip
    return y, mask


def _backward_shapes(
    dy: Tensor, more: Tensor | None, x: Tensor, mask: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor,
    relu: bool, with_dz: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    dz = dy if with_dz else dy[:0]
    return _empty_nhwc(x), _empty_nhwc(dz), torch.empty_like(weight), torch.empty_like(weight)


@kernel_op("fastuda::batch_norm_backward", _backward_shapes)
def normalise_backward(
    dy: Tensor, more: Tensor | None, x: Tensor, mask: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor,
    relu: bool, with_dz: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, of the sum before ReLU (empty unless asked for), of weight and bias.

    dy, x and `more`, which is added to dy, are channels-last. With `more` the sum before ReLU must be asked for.
    """
    dx, dz, dweight, dbias = _backward_shapes(dy, more, x, mask, mean, rstd, weight, relu, with_dz)
    num_groups, num_channels = mean.shape
    num_rows = _num_rows(x, num_groups)
    splits, rows_a_split, tile = _split(x, num_groups, _SUMS_STEPS)
    partial = mean.new_empty((num_groups, splits, 2, num_channels))
    launch(
        wrap_triton(batch_norm_sums_kernel),
        (triton.cdiv(num_channels, tile["BLOCK_C"]), splits, num_groups),
        dy, dy if more is None else more, x, mask, mean, rstd, dz, partial, num_rows, num_channels, rows_a_split,
        HAS_MORE=more is not None, RELU=relu, WITH_DZ=with_dz, UNROLL=_SUMS_STEPS, **tile,
    )  # fmt: skip
    sums = mean.new_empty((num_groups, 2, num_channels))
    launch(
        wrap_triton(batch_norm_finish_sums_kernel),
        (triton.cdiv(num_channels, _FINISH_CHANNELS),),
        partial, sums, dweight, dbias, num_channels, splits, num_groups, **_finish_blocks(splits),
    )  # fmt: skip
    tile = _tile(num_channels, _ELEMENTS)
    launch(
        wrap_triton(batch_norm_gradient_kernel),
        (triton.cdiv(num_rows, tile["BLOCK_N"]) * triton.cdiv(num_channels, tile["BLOCK_C"]), num_groups),
        dz if with_dz else dy, x, mask, mean, rstd, weight, sums, dx, num_rows, num_channels,
        RELU=relu and not with_dz, **tile,
    )  # fmt: skip
    return dx, dz, dweight, dbias


class _Normalised(Function):
    """`normalise` and its gradient, as if mean and rstd were computed from x here; the result once or twice."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None,
        relu: bool, with_mask: bool, twice: bool,
    ) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
        y, mask = normalise(x, mean, rstd, weight, bias, residual, relu, with_mask)
        ctx.save_for_backward(x, mask, mean, rstd, weight)
        ctx.relu = relu
        ctx.set_materialize_grads(False)
        return (y, y.view_as(y)) if twice else y

    @staticmethod
    def backward(ctx: Any, *dys: Tensor | None) -> tuple[Tensor | None, ...]:
        parts = [dy.contiguous(memory_format=torch.channels_last) for dy in dys if dy is not None]
        dy, more = parts[0], parts[1] if len(parts) > 1 else None
        residual_needed = ctx.needs_input_grad[5]
        # Of one part and without ReLU the residual's gradient is dy itself.
        with_dz = more is not None or (residual_needed and ctx.relu)
        dx, dz, dweight, dbias = normalise_backward(dy, more, *ctx.saved_tensors, ctx.relu, with_dz)
        dresidual = (dz if with_dz else dy) if residual_needed else None
        return dx, None, None, dweight, dbias, dresidual, None, None, None


def batch_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
    num_groups: int,
    residual: Tensor | None,
    relu: bool,
    num_batches_tracked: Tensor | None = None,
    twice: bool = False,
) -> Any:
    """The result of `fastuda_kernels.batch_norm.batch_norm`, or the two of `batch_norm_twice`; both have checked."""
    x = x.contiguous(memory_format=torch.channels_last)
    if residual is not None:
        residual = residual.contiguous(memory_format=torch.channels_last)
    # `.data`: an earlier pass of another kind may have kept the buffers for a backward that does not read them.
    mean, rstd = statistics(
        x.detach(), running_mean.data, running_var.data, num_batches_tracked, num_groups, float(momentum), float(eps)
    )
    differentiable = any(t is not None and t.requires_grad for t in (x, weight, bias, residual))
    with_mask = relu and differentiable and torch.is_grad_enabled()
    inputs = (x, mean, rstd, weight.contiguous(), bias.contiguous(), residual)
    return _Normalised.apply(*inputs, relu, with_mask, twice)
