"""torch's process-wide switches: precision and determinism, set for a run and put back after it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from fastuda.recipe import Runtime

T = TypeVar("T")
_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def configure(settings: Runtime, device: torch.device) -> None:
    """Set torch's process-wide switches: TF32 in convolutions, cuDNN's benchmark mode, determinism.

    Matrix products stay in full fp32: the losses and the confidence threshold depend on them. On a GPU
    determinism goes as far as torch has deterministic kernels; it warns of each operation that has none. Memory that
    nobody has written yet is not filled with NaN, as torch would then do by default: the tests do it, and no step
    depends on it.
    """
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = settings.tf32
        torch.backends.cudnn.benchmark = settings.cudnn_benchmark and not settings.deterministic
    if settings.deterministic:
        os.environ.setdefault(_WORKSPACE, ":4096:8")
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(settings.deterministic, warn_only=device.type == "cuda")


@contextmanager
def configured(settings: Runtime, device: torch.device) -> Iterator[None]:
    """While entered, the switches are as `configure` sets them; then they are again what they were."""
    put_back = [_determinism(), *([_precision()] if device.type == "cuda" else [])]
    try:
        configure(settings, device)
        yield
    finally:
        for one in put_back:
            one()


def _determinism() -> Callable[[], None]:
    """Puts back what is now, when it is called."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    workspace = os.environ.get(_WORKSPACE)

    def put_back() -> None:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]
        if workspace is None:
            os.environ.pop(_WORKSPACE, None)

    return put_back


def _precision() -> Callable[[], None]:
    """Likewise. torch keeps precision twice, by a name for all and by operation, and both have to be as they were."""
    backends = torch.backends
    operations = (backends.cuda.matmul, backends.mkldnn.matmul, backends.cudnn.conv, backends.cudnn.rnn)  # type: ignore[attr-defined]
    precisions = [operation.fp32_precision for operation in operations]
    products = _unless_mixed(torch.get_float32_matmul_precision)
    convolutions = _unless_mixed(lambda: backends.cudnn.allow_tf32)
    benchmark = backends.cudnn.benchmark

    def put_back() -> None:
        if products is not None:
            torch.set_float32_matmul_precision(products)
        if convolutions is not None:
            backends.cudnn.allow_tf32 = convolutions
        for operation, precision in zip(operations, precisions, strict=True):
            operation.fp32_precision = precision
        backends.cudnn.benchmark = benchmark

    return put_back


def _unless_mixed(read: Callable[[], T]) -> T | None:
    """What torch says of all operations; None where it refuses to, because they were set one by one."""
    try:
        return read()
    except RuntimeError:
        return None
