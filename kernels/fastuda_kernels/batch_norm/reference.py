"""BatchNorm of groups, residual and ReLU in plain PyTorch: the specification of the kernels."""

from __future__ import annotations

import torch
from torch import Tensor


def grouped_batch_norm(
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
) -> Tensor:
    """x [B, C, H, W] normalised by each group's own statistics, + residual, ReLU; in fp32, or fp64 for fp64."""
    wide = x if x.dtype == torch.float64 else x.float()
    groups = wide.view(num_groups, -1, *wide.shape[1:])
    variance, mean = torch.var_mean(groups, dim=(1, 3, 4), correction=0)
    _follow(running_mean, running_var, mean.detach(), variance.detach(), groups[0].numel() // x.shape[1], momentum)
    if num_batches_tracked is not None:
        num_batches_tracked.add_(num_groups)
    scale = weight * torch.rsqrt(variance + eps)
    normalised = (groups - _an_image(mean)) * _an_image(scale) + bias[:, None, None]
    y: Tensor = normalised.flatten(0, 1)
    if residual is not None:
        y = y + residual
    if relu:
        y = y.relu()
    return y.to(x.dtype).contiguous(memory_format=torch.channels_last)


def _an_image(values: Tensor) -> Tensor:
    """[G, C] → [G, 1, C, 1, 1]."""
    return values[:, None, :, None, None]


@torch.no_grad()
def _follow(
    running_mean: Tensor, running_var: Tensor, mean: Tensor, variance: Tensor, count: int, momentum: float
) -> None:
    """Move the running statistics by each group's [G, C], in order; their variance is the unbiased one."""
    unbiased = variance * (count / max(count - 1, 1))
    # `.data`: an earlier pass of another kind may have kept the buffers for a backward that does not read them.
    for group_mean, group_variance in zip(mean, unbiased, strict=True):
        running_mean.data.lerp_(group_mean, momentum)
        running_var.data.lerp_(group_variance, momentum)
