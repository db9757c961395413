"""Argument checks shared by the public functions: messages that say what was expected and what came."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def check_tensor(
    name: str,
    tensor: Tensor,
    *,
    shape: Sequence[int | None] | None = None,
    dtypes: Sequence[torch.dtype] | None = None,
    device: torch.device | None = None,
) -> None:
    """Raise ValueError (shape, device) or TypeError (dtype) naming the argument; `None` in shape is any size."""
    if shape is not None:
        fits = tensor.ndim == len(shape) and all(
            want is None or got == want for want, got in zip(shape, tensor.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if want is None else str(want) for want in shape)
            raise ValueError(f"{name} must have shape [{wanted}], got {list(tensor.shape)}")
    if dtypes is not None and tensor.dtype not in dtypes:
        raise TypeError(f"{name} must be {' or '.join(str(d) for d in dtypes)}, got {tensor.dtype}")
    if device is not None and tensor.device != device:
        raise ValueError(f"{name} is on {tensor.device}, the other arguments on {device}")


FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
