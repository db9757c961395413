"""The machine under a run: device, precision switches, versions."""

from __future__ import annotations

import os
import platform
from importlib import metadata

import torch

from fastuda.errors import FastudaError, UsageError
from fastuda.recipe import Runtime
from fastuda.version import __version__


def choose_device(name: str | None) -> torch.device:
    """`cuda` or `cpu`; without a name, a GPU if there is one. Raises FastudaError for a GPU that is not there."""
    if name not in (None, "cuda", "cpu"):
        raise UsageError(f"--device {name}: cuda or cpu")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise FastudaError(
            "--device cuda: torch finds no usable GPU here; `fastuda doctor` says why, --device cpu works"
        )
    return torch.device("cuda", torch.cuda.current_device()) if available and name != "cpu" else torch.device("cpu")


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
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(settings.deterministic, warn_only=device.type == "cuda")


def versions() -> dict[str, str]:
    """Versions of what a result depends on, by name."""
    found = {"fastuda": __version__, "python": platform.python_version(), "torch": torch.__version__}
    for package in ("triton", "nvidia-dali-cuda130", "numpy", "pillow"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "missing"
    return found


def device_name(device: torch.device) -> str:
    """The GPU's name, or the CPU's architecture and the number of cores this process may use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cores = len(os.sched_getaffinity(0))
    return f"CPU, {platform.machine()}, {cores} core{'s' if cores > 1 else ''}"
