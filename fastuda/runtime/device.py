"""The machine under a run: device, versions."""

from __future__ import annotations

import os
import platform
from importlib import metadata

import torch

from fastuda.errors import FastudaError, UsageError
from fastuda.version import __version__


def choose_device(name: str | None) -> torch.device:
    """`cuda` or `cpu`; without a name, a GPU if there is one. Raises FastudaError for a GPU that is not there.

    Of several GPUs the process's current one, or, where torchrun started it, the one of its place on the machine.
    """
    if name not in (None, "cuda", "cpu"):
        raise UsageError(f"device {name}: cuda or cpu")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise FastudaError(
            "device cuda: torch finds no usable GPU here; `fastuda doctor` says why, and cpu works (--device cpu, in "
            'Python device="cpu")'
        )
    if not available or name == "cpu":
        return torch.device("cpu")
    if "LOCAL_RANK" in os.environ:
        place, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if place >= count:
            raise FastudaError(
                f"rank {place} of this machine has no GPU of its own: torch finds {count}; start as many ranks as "
                "there are GPUs (--nproc-per-node)"
            )
        torch.cuda.set_device(place)
    return torch.device("cuda", torch.cuda.current_device())


def versions(*further: str) -> dict[str, str]:
    """Versions of what a result depends on, by name, and of `further` packages."""
    found = {"fastuda": __version__, "python": platform.python_version(), "torch": torch.__version__}
    for package in ("triton", "nvidia-dali-cuda130", "numpy", "pillow", *further):
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
