"""Calls of batch_norm's kernels and of its reference, and everything that comes of one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastuda_kernels.batch_norm.reference import grouped_batch_norm

EPS = torch.finfo(torch.float32).eps
NAMES = ("x", "weight", "bias", "residual")
Call = dict[str, Any]


def case(
    *size: int,
    num_groups: int = 1,
    residual: bool = False,
    relu: bool = False,
    mean: float = 0.5,
    dtype: torch.dtype = torch.float32,
    momentum: float = 0.1,
    device: torch.device,
) -> Call:
    """A call of the kernels: channels-last x of unit deviation about `mean`, and all that goes with it."""
    generator = torch.Generator().manual_seed(size[1] * 100 + size[2])
    x, add = (torch.randn(size, generator=generator).contiguous(memory_format=torch.channels_last) for _ in range(2))
    weight, bias, running_mean, running_var = torch.randn(4, size[1], generator=generator).unbind()
    return {
        "x": (x + mean).to(device, dtype),
        "weight": weight.to(device),
        "bias": bias.to(device),
        "running_mean": running_mean.to(device),
        "running_var": running_var.abs().to(device),
        "momentum": momentum,
        "eps": 1e-5,
        "num_groups": num_groups,
        "residual": add.to(device, dtype) if residual else None,
        "relu": relu,
    }


def run(function: Any, call: Call, upstream: Tensor | None = None) -> dict[str, Tensor]:
    """Result, running statistics and gradients, leaving the call as it was; the same upstream in every type."""
    own = {name: value.detach().clone() if isinstance(value, Tensor) else value for name, value in call.items()}
    inputs = {name: own[name].requires_grad_() for name in NAMES if own[name] is not None}
    result = function(**own)
    if upstream is None:
        upstream = torch.randint(-99, 100, result.shape, generator=torch.Generator().manual_seed(1)) / 64
    found = torch.autograd.grad(result, list(inputs.values()), upstream.to(result))
    statistics = {name: own[name] for name in ("running_mean", "running_var")}
    return {"y": result.detach(), **statistics, **{f"d{name}": g for name, g in zip(inputs, found, strict=True)}}


def exactly(call: Call, upstream: Tensor | None = None) -> dict[str, Tensor]:
    """What the same numbers give in fp64."""
    wide = {name: value.cpu().double() if isinstance(value, Tensor) else value for name, value in call.items()}
    return run(grouped_batch_norm, wide, upstream)
