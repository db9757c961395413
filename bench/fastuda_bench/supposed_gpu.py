"""A GPU that is not there: what torch's compiler and Triton ask of one, answered as an H100 would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import triton
from torch import Tensor
from torch._dynamo.device_interface import CudaInterface
from torch._prims_common import suggest_memory_format
from torch._subclasses import fake_tensor
from triton.backends.compiler import GPUTarget

DEVICE = torch.device("cuda", 0)
_CAPABILITY = (9, 0)
MULTIPROCESSORS = 132
_PROPERTIES = SimpleNamespace(
    name="H100",
    multi_processor_count=MULTIPROCESSORS,
    major=_CAPABILITY[0],
    minor=_CAPABILITY[1],
    total_memory=80 * 2**30,
    warp_size=32,
    regs_per_multiprocessor=65536,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    shared_memory_per_block_optin=227 * 1024,
    shared_memory_per_multiprocessor=228 * 1024,
    L2_cache_size=50 * 2**20,
)


class _Driver:
    """As much of Triton's driver as compiling needs."""

    def get_current_target(self) -> Any:
        return GPUTarget("cuda", 10 * _CAPABILITY[0] + _CAPABILITY[1], 32)

    def get_current_device(self) -> int:
        return 0


def suppose_triton() -> None:
    """Let Triton compile to its intermediate code in this process, as it does where it finds a GPU."""
    triton.runtime.driver.set_active(_Driver())


@contextmanager
def supposed_gpu() -> Iterator[None]:
    """While entered, torch's compiler finds an H100 to write code for; fake tensors can be on it, nothing can run.

    torch keeps some answers for as long as the process lives, so enter it in a process of its own.
    """

    def answers(value: Any) -> Callable[..., Any]:
        return lambda *_, **__: value

    said = {
        "is_available": True,
        "current_device": 0,
        "device_count": 1,
        "get_device_properties": _PROPERTIES,
        "get_device_capability": _CAPABILITY,
        "is_bf16_supported": True,
        "device": nullcontext(),
    }
    of_interface = {**{name: said[name] for name in list(said)[:4]}, "get_compute_capability": 90}
    with ExitStack() as stack:
        for name, value in said.items():
            stack.enter_context(patch.object(torch.cuda, name, answers(value)))
        for name, value in of_interface.items():
            stack.enter_context(patch.object(CudaInterface, name, staticmethod(answers(value))))
        for name in ("get_device_properties", "current_device"):
            stack.enter_context(patch.object(CudaInterface.Worker, name, staticmethod(answers(said[name]))))
        stack.enter_context(patch.object(torch.version, "cuda", "13.0"))
        stack.enter_context(patch.object(fake_tensor, "init_gpu_context", answers(None)))
        stack.enter_context(patch.object(Tensor, "copy_", _copy))
        stack.enter_context(patch.object(torch._C, "_conv_determine_backend_memory_format", _memory_format))
        yield


def _memory_format(images: Tensor, weight: Tensor, *_: Any) -> torch.memory_format:
    """Of a convolution's results, as cuDNN makes them; without cuDNN torch would say that all are NCHW."""
    formats = {suggest_memory_format(images), suggest_memory_format(weight)}
    return torch.channels_last if torch.channels_last in formats else torch.contiguous_format


def _copy(to: Tensor, values: Tensor, non_blocking: bool = False) -> Tensor:
    """`Tensor.copy_`, whose C++ half asks for the GPU itself even of a fake tensor."""
    copied: Tensor = torch.ops.aten.copy_.default(to, values, non_blocking)
    return copied
