"""A network put on a device, to compute the way that the device does fastest."""

from __future__ import annotations

import torch

from fastuda.model.segmenter import Segmenter
from fastuda.runtime.fast_path import FastPath


def placed(model: Segmenter, fast: FastPath, device: torch.device) -> Segmenter:
    """Move a model to `device` in the path's memory format, set how its layers compute, and return it."""
    memory_format = torch.channels_last if fast.channels_last else torch.contiguous_format
    model.to(device, memory_format=memory_format)  # type: ignore[call-overload]
    model.follow(fast)
    return model
