"""Other ranks' tensors inside a forward pass, with their gradients: an operator that compilers and graphs let be."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def num_ranks() -> int:
    """Ranks of the process's default group; 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def own_rank() -> int:
    """This process's among them."""
    return dist.get_rank() if num_ranks() > 1 else 0


def gather(x: Tensor) -> Tensor:
    """[…] of every rank, in their order: [R, …]; alone [1, …].

    Differentiable: the gradient of a rank's own part is the sum of what all ranks' losses say of it. So the mean over
    the ranks of the gradients of parameters is that of the mean of the losses.
    """
    size = num_ranks()
    return x[None] if size == 1 else torch.ops.fastuda.gather_ranks(x, size, own_rank())


@torch.library.custom_op("fastuda::gather_ranks", mutates_args=())
def _gather(x: Tensor, size: int, rank: int) -> Tensor:
    every = x.new_empty((size, *x.shape))
    dist.all_gather(list(_sendable(every)), _sendable(x.contiguous()))
    return every


@_gather.register_fake
def _(x: Tensor, size: int, rank: int) -> Tensor:
    return x.new_empty((size, *x.shape))


@torch.library.custom_op("fastuda::sum_ranks", mutates_args=())
def _sum(x: Tensor) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


@_sum.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def _sendable(x: Tensor) -> Tensor:
    """The same memory in a type that every link knows."""
    return x.view(torch.uint8) if x.dtype == torch.bool else x


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, _, ctx.rank = inputs


def _backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
    return torch.ops.fastuda.sum_ranks(upstream)[ctx.rank].clone(), None, None


_gather.register_autograd(_backward, setup_context=_keep)
