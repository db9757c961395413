"""Memory that ran out, told in one error: what was asked for, what is needed, who holds what, what to lower."""

from __future__ import annotations

import logging
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from fastuda.errors import FastudaError
from fastuda.memory.savings import TRAINING, Saving, Work, estimate, savings
from fastuda.printable import on_one_line
from fastuda.recipe import Recipe

log = logging.getLogger(__name__)

_GPU_SIGNS = ("out of memory", "cudnn_status_alloc_failed", "cublas_status_alloc_failed", "cudaerrormemoryallocation")
_HOST_SIGNS = ("defaultcpuallocator", "can't allocate memory", "cannot allocate memory", "not enough memory")
_ASKED = re.compile(r"tried to allocate ([\d.]+) ?(bytes|[KMGT]i?B)", re.IGNORECASE)
_MEMINFO = Path("/proc/meminfo")
_TITLES: dict[Work, str] = {
    "adaptation": "an adaptation iteration",
    "warm-up": "a warm-up iteration",
    "evaluation": "an evaluation",
    "prediction": "a prediction",
}
_GOING_ON = (
    "a run that has begun keeps its recipe: free memory and go on from its last checkpoint with --resume, or begin it "
    "anew, in another folder, with other values"
)
_OWN_RECIPE = (
    "`fastuda eval` and `predict` take other values from a recipe file: --recipe FILE, with `base` and what differs"
)
_ON_CPU = "; --device cpu does without the GPU"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, the GPU's or the host's; torch, cuDNN, cuBLAS, DALI, Python each say it otherwise."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in (*_GPU_SIGNS, *_HOST_SIGNS))


@contextmanager
def memory_told(work: Work, recipe: Recipe | None, device: torch.device, batch_size: int = 1) -> Iterator[None]:
    """Turn the error of full memory into a FastudaError that says what `work` needs and what to lower.

    `batch_size` is an evaluation's; without a recipe nothing is estimated. Nothing is asked of the device unless memory
    ran out. The estimates then take some seconds each.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise FastudaError(_told(error, work, recipe, device, batch_size)) from error


@contextmanager
def shortage_told(work: str) -> Iterator[None]:
    """Turn the error of full memory into a FastudaError of one line, where a run does `work` that no setting lowers."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise FastudaError(
            f"{shortage(error)}: {work} asked for {_asked(error)}; earlier checkpoints stay: free memory and go on "
            "with --resume"
        ) from error


def shortage(error: BaseException) -> str:
    """Whose memory is full, as far as its error says."""
    if _is_hosts(error):
        return "this machine's memory is full"
    if "cuda error: out of memory" in str(error).lower() and not isinstance(error, torch.OutOfMemoryError):
        return "the GPU's memory, or this machine's that is pinned for it, is full"
    return "the GPU's memory is full"


def _told(error: BaseException, work: Work, recipe: Recipe | None, device: torch.device, batch_size: int) -> str:
    on_gpu = device.type == "cuda" and not _is_hosts(error)
    where = "the GPU's" if on_gpu else "this machine's"
    peak, holds = _gpu(device) if on_gpu else _host()  # before the estimates, which need memory of the machine's
    needed: int | None = None
    ways: list[Saving] = []
    if recipe is not None:
        log.warning("%s memory is full; estimating what would need less, which takes a minute or so", where)
        batch_size = recipe.train.batch_size if work in TRAINING else batch_size
        needed, ways = _estimates(work, recipe, device, batch_size)
    besides = "" if needed is None or work in TRAINING else ", besides what else this process holds"
    lines = [
        f"{where} memory is full: {_TITLES[work]} of batch {batch_size} asked for {_asked(error)}",
        f"needed: {'not estimated' if needed is None else f'about {_gib(needed)}'}{besides}; reached: {peak}",
        holds,
    ]
    if ways:
        lines.append("to lower, what saves most first, and the estimate that it gives:")
        lines += [f"  {way.settings} (about {_gib(way.bytes)})" for way in ways]
    if work != "prediction":
        lines.append(_GOING_ON)
    if work not in TRAINING:
        lines.append(_OWN_RECIPE + (_ON_CPU if on_gpu else ""))
    return "\n".join(lines)


def _estimates(work: Work, recipe: Recipe, device: torch.device, batch_size: int) -> tuple[int | None, list[Saving]]:
    """What `work` needs and ways to need less; where the machine's own memory is full, that may be too much to ask."""
    needed: int | None = None
    ways: list[Saving] = []
    try:
        needed = estimate(recipe, device, work, batch_size)
        ways = savings(recipe, device, work, batch_size, needed)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    return needed, ways


def _is_hosts(error: BaseException) -> bool:
    """Whether it was not the GPU's memory."""
    if isinstance(error, torch.OutOfMemoryError):
        return False
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in _HOST_SIGNS)


def _asked(error: BaseException) -> str:
    """How much the failed allocation was for, as far as its error says."""
    found = _ASKED.search(str(error))
    if found is None:
        return f"more ({type(error).__name__}: {on_one_line(str(error), 120) or 'no more is said'})"
    amount, unit = found.groups()
    return f"{_gib(int(float(amount)))} more" if unit == "bytes" else f"{amount} {unit} more"


def _gpu(device: torch.device) -> tuple[str, str]:
    """The peak of this process, and what the GPU has and who holds it."""
    try:
        allocated, reserved = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
        own, (free, total) = torch.cuda.memory_reserved(device), torch.cuda.mem_get_info(device)
        name = torch.cuda.get_device_name(device)
    except RuntimeError as error:  # a device that has failed altogether answers nothing
        return "not known", f"the GPU says no more ({on_one_line(str(error), 120)})"
    others = max(0, total - free - own)
    return (
        f"{_gib(allocated)} allocated, {_gib(reserved)} reserved at the peak",
        f"the GPU ({name}): {_gib(total)}, of which torch holds {_gib(own)} here, other processes and this one's CUDA "
        f"and DALI {_gib(others)}, and {_gib(free)} are free",
    )


def _host() -> tuple[str, str]:
    """The peak of this process, and what the machine has and who holds it."""
    peak = f"{_gib(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)} resident at the peak"
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    limit = "" if soft == resource.RLIM_INFINITY else f"; this process may have {_gib(soft)} (ulimit -v)"
    known = _meminfo()
    if "MemTotal" not in known or "MemAvailable" not in known:
        return peak, f"this machine does not say how much memory it has{limit}"
    total, free = known["MemTotal"], known["MemAvailable"]
    return peak, f"this machine: {_gib(total)}, of which {_gib(free)} are available{limit}"


def _meminfo() -> dict[str, int]:
    """Bytes by the name in Linux's /proc/meminfo; empty where there is none."""
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:
        return {}
    fields = (line.split() for line in lines)
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in fields if len(words) == 3}


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 0.05 * 2**30 else f"{count / 2**20:.1f} MiB"
