"""BatchNorm of several groups of one batch, each with statistics of its own: one pass that equals several.

B images in G groups, C channels, H W positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fastuda.distributed.collectives import gather
from fastuda_kernels.batch_norm import batch_norm, batch_norm_twice


class GroupedBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` with what comes behind it, whose training batch may be G groups of images (see `grouped`).

    Each group is normalised by its own statistics, and the running statistics take the groups in
    their order, so that outputs, gradients and statistics are those of G passes. Only the stem's and
    the blocks' layers are of this class; in evaluation mode groups make no difference. `fused`
    training passes are one call of an operation of `fastuda_kernels.batch_norm`.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self.num_groups = 1
        self.fused = False
        self.synchronised = False

    def forward(self, input: Tensor, residual: Tensor | None = None, *, relu: bool = False) -> Tensor:
        """float [B, C, H, W] → the same, `residual` of that shape added, then ReLU; B is a multiple of the groups."""
        if self._runs_fused:
            return batch_norm(input, *self._tensors(), **self._settings(), residual=residual, relu=relu)
        by_groups = self.training and (self.num_groups > 1 or self.synchronised)
        out = self._grouped(input) if by_groups else super().forward(input)
        if residual is not None:
            out = out + residual
        return F.relu(out, inplace=True) if relu else out

    def twice(self, input: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` makes with ReLU, twice, for two readers; `fused`, their gradients meet in the kernel."""
        if self._runs_fused:
            return batch_norm_twice(input, *self._tensors(), **self._settings(), residual=residual)
        out: Tensor = self(input, residual, relu=True)
        return out, out

    @property
    def _runs_fused(self) -> bool:
        # Without a momentum a mean over all batches is kept.
        return self.fused and self.training and self.momentum is not None and not self.synchronised

    def _tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        assert self.running_mean is not None
        assert self.running_var is not None
        return self.weight, self.bias, self.running_mean, self.running_var

    def _settings(self) -> dict[str, Any]:
        return {
            "momentum": self.momentum,
            "eps": self.eps,
            "num_groups": self.num_groups,
            "num_batches_tracked": self.num_batches_tracked,
        }

    def _grouped(self, input: Tensor) -> Tensor:
        groups = input.view(self.num_groups, -1, *input.shape[1:])
        wide = groups if groups.dtype == torch.float64 else groups.float()
        variance, mean = torch.var_mean(wide, dim=(1, 3, 4), correction=0)
        count = groups[0].numel() // groups.shape[2]
        if self.synchronised:
            variance, mean, count = _over_ranks(variance, mean, count)
        self._follow(mean.detach(), variance.detach(), count)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        normalised: Tensor = wide * scale[:, None, :, None, None] + shift[:, None, :, None, None]
        return normalised.to(input.dtype).flatten(0, 1)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics by each group's [G, C], in order, as one pass a group would."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        unbiased = variance * (count / max(count - 1, 1))
        # `.data`: an earlier plain pass that still waits for its backward has kept these buffers, though it
        # does not read them there, and must not be told that they changed; torch's own update does not tell it.
        running_mean, running_variance = self.running_mean.data, self.running_var.data
        for group in range(self.num_groups):
            running_mean.lerp_(mean[group].to(running_mean.dtype), self.momentum)
            running_variance.lerp_(unbiased[group].to(running_variance.dtype), self.momentum)
        self.num_batches_tracked.add_(self.num_groups)


def _over_ranks(variance: Tensor, mean: Tensor, count: int) -> tuple[Tensor, Tensor, int]:
    """Biased variances and means [G, C] of `count` values on each rank as those of all ranks' values."""
    every = gather(torch.stack([variance, mean]))
    whole = every[:, 1].mean(0)
    return (every[:, 0] + (every[:, 1] - whole).square()).mean(0), whole, count * len(every)


def synchronise(model: nn.Module) -> list[str]:
    """Let the model's BatchNorm layers take their statistics over all ranks; returns the names of those that cannot."""
    others = []
    for name, layer in model.named_modules():
        if isinstance(layer, GroupedBatchNorm2d):
            layer.synchronised = True
        elif isinstance(layer, _BatchNorm):
            others.append(name)
    return others


@contextmanager
def grouped(model: nn.Module, num_groups: int) -> Iterator[None]:
    """While entered, the model's training batches are `num_groups` groups of images, one behind the other."""
    layers = [layer for layer in model.modules() if isinstance(layer, GroupedBatchNorm2d)]
    for layer in layers:
        layer.num_groups = num_groups
    try:
        yield
    finally:
        for layer in layers:
            layer.num_groups = 1
