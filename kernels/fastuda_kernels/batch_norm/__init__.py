"""BatchNorm in training mode, with statistics a group of images, a residual and ReLU."""

from __future__ import annotations

import torch
from torch import Tensor

from fastuda_kernels.batch_norm import triton as fused
from fastuda_kernels.batch_norm.reference import grouped_batch_norm
from fastuda_kernels.checks import FLOATS, check_tensor
from fastuda_kernels.choice import runs_triton

__all__ = ["batch_norm", "batch_norm_twice"]


def batch_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    *,
    momentum: float,
    eps: float = 1e-5,
    num_groups: int = 1,
    num_batches_tracked: Tensor | None = None,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """Normalise each group of images by its own mean and biased variance, add `residual`, apply ReLU.

    Equals a pass of `torch.nn.functional.batch_norm(training=True)` for each group, but for one
    rounding at the end where that has one an operation, and that one position a group is allowed.

    Args:
        x: float [B, C, H, W], any memory format, none of them 0; group g is images g·B/G … (g+1)·B/G − 1.
        weight, bias: fp32 [C], fp64 for fp64 x.
        running_mean, running_var: contiguous, the same type and shape; moved in place towards each group's mean and
            unbiased variance, group after group.
        momentum: how far they are moved, 0 (not at all) to 1.
        eps: added to the variance.
        num_groups: G, which divides B.
        num_batches_tracked: int64 scalar, to which G is added in place.
        residual: x's shape and type, any memory format.
        relu: whether negative results become 0.

    Returns:
        Like x, channels-last. Differentiable in x, weight, bias and residual, also through the statistics.

    Raises:
        ValueError, TypeError: shapes, types or devices that do not fit, naming what came.
    """
    own = (x, weight, bias, running_mean, running_var, momentum, eps, num_groups, residual, relu, num_batches_tracked)
    _check(*own)
    y: Tensor = fused.batch_norm(*own) if runs_triton(x) else grouped_batch_norm(*own)
    return y


def batch_norm_twice(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    *,
    residual: Tensor,
    momentum: float,
    eps: float = 1e-5,
    num_groups: int = 1,
    num_batches_tracked: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The end of a residual block: `batch_norm` with `residual` and ReLU, whose result is given twice.

    One is for the next block's convolutions, one for its shortcut. They are the same values, in the same memory, so
    neither may be written to; but in the kernels their gradients come back apart and are added where they are read,
    which saves writing and reading their sum. Arguments and errors are those of `batch_norm`.
    """
    own = (x, weight, bias, running_mean, running_var, momentum, eps, num_groups, residual, True, num_batches_tracked)
    _check(*own)
    if runs_triton(x):
        first, second = fused.batch_norm(*own, twice=True)
        return first, second
    y = grouped_batch_norm(*own)
    return y, y


def _check(
    x: Tensor, weight: Tensor, bias: Tensor, running_mean: Tensor, running_var: Tensor, momentum: float, eps: float,
    num_groups: int, residual: Tensor | None, relu: bool, num_batches_tracked: Tensor | None,
) -> None:  # fmt: skip
    check_tensor("x", x, shape=(None, None, None, None), dtypes=FLOATS)
    if x.numel() == 0:
        raise ValueError(f"x must not be empty, got shape {list(x.shape)}")
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    channels = {"weight": weight, "bias": bias, "running_mean": running_mean, "running_var": running_var}
    for name, tensor in channels.items():
        check_tensor(name, tensor, shape=(x.shape[1],), dtypes=(wide,), device=x.device)
    for name in ("running_mean", "running_var"):
        if not channels[name].is_contiguous():
            raise ValueError(f"{name} must be contiguous, got stride {channels[name].stride()}")
    if num_batches_tracked is not None:
        check_tensor("num_batches_tracked", num_batches_tracked, shape=(), dtypes=(torch.int64,), device=x.device)
    if residual is not None:
        check_tensor("residual", residual, shape=x.shape, dtypes=(x.dtype,), device=x.device)
    if num_groups < 1 or x.shape[0] % num_groups != 0:
        raise ValueError(f"num_groups must divide the {x.shape[0]} images of x, got {num_groups}")
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum must be from 0 to 1, got {momentum}")
