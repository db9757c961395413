"""How a function that launches Triton kernels becomes an operator that PyTorch can trace, compile and differentiate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import triton
from torch import Tensor
from torch.library import custom_op, triton_op

INTERPRETED: bool = bool(triton.knobs.runtime.interpret)
"""Whether TRITON_INTERPRET=1 was set when Triton was imported: kernels then run in numpy, on CPU tensors."""


def kernel_op(
    name: str, shapes: Callable[..., Any], *, mutates_args: Sequence[str] = ()
) -> Callable[[Callable[..., Any]], Any]:
    """Register the decorated function as the operator `name`; `shapes`, of the same arguments, makes empty results.

    `mutates_args` names the arguments that it writes to; such an operator can have no gradient.

    The boundary is the least opaque that works: `triton_op`, through which `torch.compile` sees each launch.
    Interpreted kernels cannot be traced, so there it is an opaque `custom_op` of the same name and schema.
    """
    register = custom_op if INTERPRETED else triton_op

    def decorate(function: Callable[..., Any]) -> Any:
        operator: Any = register(name, mutates_args=mutates_args)(function)
        operator.register_fake(shapes)
        return operator

    return decorate


def wrap_triton(kernel: Any) -> Any:
    """A kernel as a `kernel_op` launches it; by this very name torch.compile's cache finds an operator's kernels."""
    return kernel if INTERPRETED else torch.library.wrap_triton(kernel)


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **constants: Any) -> None:
    """Launch a wrapped kernel on the GPU of its tensors; an empty grid is no launch."""
    if 0 in grid:
        return
    device = next(arg.device for arg in args if isinstance(arg, Tensor))
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[grid](*args, **constants)


def num_multiprocessors(device: torch.device) -> int:
    """Of the GPU that `device` names; 1 for a CPU, where kernels are interpreted."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
