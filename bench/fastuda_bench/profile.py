"""Where an iteration's time goes: a Chrome trace, the most expensive operations, the number of launches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

_ITERATIONS = 3
_ROWS = 10
_LAUNCHES = ("cudaLaunchKernel", "cudaGraphLaunch", "cuLaunchKernel", "cudaMemcpyAsync", "cudaMemsetAsync")


def write_profile(call: Callable[[], object], device: torch.device, folder: Path, title: str) -> None:
    """Profile a few calls into `trace.json` (for Perfetto or chrome://tracing) and `operations.txt`, also printed."""
    folder.mkdir(parents=True, exist_ok=True)
    found = _profiled(call, device, _ITERATIONS)
    found.export_chrome_trace(str(folder / "trace.json"))
    table = operations_table(found, device, title)
    with (folder / "operations.txt").open("w") as file:
        Console(file=file, width=160).print(table)
    Console().print(table)


def operations_table(found: Any, device: torch.device, title: str) -> Table:
    """The ten operations (on a GPU: kernels) with the most time of their own, an iteration of what `title` names."""
    on_gpu = device.type == "cuda"

    def own(event: Any) -> float:
        return float(event.self_device_time_total if on_gpu else event.self_cpu_time_total)

    # On a GPU the operator that launched a kernel is listed with the kernel's time as well.
    kind = "CUDA" if on_gpu else "CPU"
    events = sorted((event for event in found.key_averages() if event.device_type.name == kind), key=own, reverse=True)
    whole = sum(own(event) for event in events) or 1.0
    where = "the GPU" if on_gpu else "the CPU"
    table = Table(title=f"{title}: time of its own, an iteration, on {where}", box=box.SIMPLE)
    for column in ("operation", "ms", "share", "calls"):
        table.add_column(column, justify="left" if column == "operation" else "right")
    for event in events[:_ROWS]:
        share, calls = own(event) / whole, event.count / _ITERATIONS
        table.add_row(_name(event.key), f"{own(event) / 1000 / _ITERATIONS:.2f}", f"{100 * share:.1f} %", f"{calls:g}")
    return table


def _name(key: str) -> str:
    """On one line; of compiled code as much of its hash as tells it from another."""
    words = key.replace("#", " ").split()
    return " ".join(word if len(word) <= 32 else f"{word[:12]}…" for word in words)[:60]


def launches(call: Callable[[], object], device: torch.device) -> int | None:
    """How many launches and copies the host issues in one call: a graph is one; None for a CPU."""
    if device.type != "cuda":
        return None
    found = _profiled(call, device, 1)
    return sum(int(event.count) for event in found.key_averages() if event.key.startswith(_LAUNCHES))


def _profiled(call: Callable[[], object], device: torch.device, iterations: int) -> Any:
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
        torch.cuda.synchronize()
    with profile(activities=activities, acc_events=True) as found:  # torch 2.11 warns of what it would drop
        for _ in range(iterations):
            call()
        if device.type == "cuda":
            torch.cuda.synchronize()
    return found
