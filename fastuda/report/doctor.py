"""What a machine has and lacks for a run: GPU, driver, torch, Triton, DALI, disk, data sets."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from fastuda.data.cache import cache_folder
from fastuda.data.checking.command import check_command
from fastuda.data.reading.samples import find_samples
from fastuda.errors import FastudaError
from fastuda.layouts import LAYOUTS
from fastuda.recipe import Classes, Data, Domain

Status = Literal["ok", "note", "missing"]
_LOW_DISK_BYTES = 50 << 30
_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was looked at, what was found, what to do if it is not in order."""

    subject: str
    status: Status
    found: str
    advice: str = ""


def examine(data_sets: Sequence[Domain]) -> list[Finding]:
    """Findings about this machine and the data sets named; nothing is changed, nothing is sent anywhere."""
    findings = [_python(), _torch(), _gpu(), _package("triton", "kernels fall back to plain PyTorch"), _compiler()]
    findings += [_dali(), _disk()]
    findings += [_data_set(domain, split) for domain in data_sets for split in ("train", "val")]
    return findings


def _python() -> Finding:
    return Finding("Python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _torch() -> Finding:
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    return Finding("torch", "ok", f"{torch.__version__}, {build}, {len(os.sched_getaffinity(0))} CPU cores")


def _gpu() -> Finding:
    import torch

    if torch.cuda.is_available():
        index = torch.cuda.current_device()
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        return Finding("GPU", "ok", f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free")
    if torch.version.cuda is None:
        return Finding("GPU", "note", "torch is a CPU build", "for a GPU install torch's CUDA build: pip install torch")
    if _DRIVER.exists():
        version = _DRIVER.read_text().splitlines()[0]
        advice = f"the driver may be too old for CUDA {torch.version.cuda}: update it"
        return Finding("GPU", "note", f"torch cannot use one; {version}", advice)
    return Finding("GPU", "note", "no NVIDIA driver", "training runs on the CPU: fit for the demo, not for Cityscapes")


def _compiler() -> Finding:
    """What Triton and torch.compile build their launchers with."""
    named = (os.environ.get("CC"), "gcc", "clang", "cc")
    found = next((path for name in named if name and (path := shutil.which(name))), None)
    if found is None:
        advice = "Triton's kernels and torch.compile need one, and the slow paths run without: install gcc"
        return Finding("C compiler", "note", "none", advice)
    return Finding("C compiler", "ok", found)


def _dali() -> Finding:
    finding = _package("nvidia-dali-cuda130", "install it: pip install nvidia-dali-cuda130")
    if finding.status == "ok":
        try:
            import nvidia.dali  # noqa: F401
        except (ImportError, OSError) as error:
            return Finding("nvidia-dali-cuda130", "missing", f"does not import: {error}", "reinstall it")
    return finding


def _package(name: str, advice: str) -> Finding:
    try:
        return Finding(name, "ok", metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(name, "missing", "not installed", advice)


def _disk() -> Finding:
    cache = cache_folder(Data())
    existing = cache
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    found = f"{cache}, {free / 2**30:.1f} GiB free"
    if not os.access(existing, os.W_OK):
        return Finding("cache", "missing", f"{found}, not writable", "set FASTUDA_CACHE to a folder you can write to")
    if free < _LOW_DISK_BYTES:
        advice = "GTA5 and Cityscapes take about 40 GiB packed; set FASTUDA_CACHE to a larger disk for them"
        return Finding("cache", "note", found, advice)
    return Finding("cache", "ok", found)


def _data_set(domain: Domain, split: Literal["train", "val"]) -> Finding:
    subject = f"{domain.layout} {split}"
    labelled = split == "val" or LAYOUTS[domain.layout].is_whole
    try:
        listing = find_samples(domain, split, labelled=labelled)
    except FastudaError as error:
        return Finding(subject, "missing", str(error), "see the layouts in fastuda/data/README.md")
    found = f"{len(listing.samples)} samples in {domain.root}"
    if left_out := str(listing.left_out()):
        command = check_command(domain, split, labelled=labelled, classes=Classes().build(), data=Data())
        advice = f"{command} names them"
        return Finding(subject, "note", f"{found}; not used: {left_out}", advice)
    return Finding(subject, "ok", found)
