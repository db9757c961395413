"""Which implementation runs: Triton on a GPU where it works, the reference everywhere else."""

from __future__ import annotations

import functools
import logging
import warnings

import torch
import triton
import triton.language as tl
from torch import Tensor

log = logging.getLogger(__name__)


def runs_triton(tensor: Tensor) -> bool:
    """Whether an operation on `tensor` goes to its Triton kernels: not on a CPU, not in fp64.

    On the first call for a GPU a kernel of one line is tried; where that fails, one warning says why
    and the references run from then on.
    """
    return tensor.is_cuda and tensor.dtype != torch.float64 and _works(tensor.device.index or 0)


@torch.compiler.assume_constant_result
def _works(index: int) -> bool:
    # A function around the cached one: torch.compile looks into caches and would not see the mark on it.
    return _tried(index)


@functools.cache
def _tried(index: int) -> bool:
    if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
        raise RuntimeError("call each operation once before capturing a CUDA graph: Triton has not been tried yet")
    try:
        probe = torch.zeros(1, dtype=torch.int32, device=torch.device("cuda", index))
        with warnings.catch_warnings(), torch.cuda.device_of(probe):
            warnings.simplefilter("ignore")
            _one_kernel[(1,)](probe)
        worked = bool(probe.item() == 1)
        reason = "a kernel wrote nothing"
    except Exception as error:  # whatever a missing compiler or an unfit driver raises
        worked, reason = False, f"{type(error).__name__}: {error}"
    if not worked:
        log.warning("Triton does not work on GPU %d (%s): the slower PyTorch references run instead", index, reason)
    return worked


@triton.jit
def _one_kernel(out_ptr):
    tl.store(out_ptr, 1)
