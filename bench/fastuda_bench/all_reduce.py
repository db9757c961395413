"""Does the model of an all-reduce hold here? Gloo's, between processes of this machine, timed and fitted.

A line through some sizes gives a step's latency (alpha) and a byte's time (beta); other sizes, in between and beyond,
are then predicted and held against what they took. The fastest window of each counts: what else runs on the machine
only adds to it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from fastuda.errors import FastudaError
from fastuda_bench.links import ring_seconds
from fastuda_bench.results import Row, gpu, stamp, summary, write_json

FITTED = (2**16, 2**18, 2**20, 2**22, 2**24)
"""Bytes of the all-reduces that the line is laid through."""
HELD_OUT = (3 * 2**19, 3 * 2**22, 2**26)
"""Of those that it has to predict: two in between, and one four times as large as any."""
_WINDOW_SECONDS = 0.1
_MOST_TIMES = 50
_PATIENCE = timedelta(seconds=120)


@dataclass(frozen=True)
class Line:
    """What all-reduces of different sizes take: a ring whose steps cost `alpha` seconds, and `beta` more a byte."""

    ranks: int
    alpha: float
    beta: float

    def seconds(self, num_bytes: float) -> float:
        """Of an all-reduce of `num_bytes`."""
        return ring_seconds(num_bytes, self.ranks, self.alpha, self.beta)


def fitted(ranks: int, seconds: dict[int, float]) -> Line:
    """The line that is wrong by the least share of each size's seconds, squared; its latency is not below 0."""
    sizes, times = (np.array(one, float) for one in (list(seconds), list(seconds.values())))
    start, slope = np.linalg.lstsq(np.stack([1 / times, sizes / times], 1), np.ones_like(times), rcond=None)[0]
    if start < 0:
        shares = sizes / times
        start, slope = 0.0, shares.sum() / (shares * shares).sum()
    steps = 2 * (ranks - 1)
    return Line(ranks, float(start) / steps, float(slope) * ranks / steps)


def all_reduce_rows(
    ranks: int, folder: Path, *, repeats: int, report: Callable[[str], None] = lambda line: None
) -> list[Row]:
    """A row a size: what its all-reduce took between `ranks` processes, and what the line says that it takes.

    A repeat goes once through all sizes, so that a machine that slows down meanwhile slows all of them. Raises
    FastudaError where the processes cannot work together.
    """
    sizes = sorted((*FITTED, *HELD_OUT))
    folder.mkdir(parents=True, exist_ok=True)
    arguments = (ranks, sizes, repeats, str(folder))
    try:
        spawn(_rank, arguments, nprocs=ranks)  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever a process died of
        said = str(error).strip().splitlines()[-1]  # of its traceback
        raise FastudaError(f"{ranks} processes cannot all-reduce over Gloo here: {said}") from error
    found: dict[str, list[float]] = json.loads((folder / "seconds.json").read_text())
    measured = {size: found[str(size)] for size in sizes}
    line = fitted(ranks, {size: min(measured[size]) for size in FITTED})
    report(f"{ranks} ranks: {1e6 * line.alpha:.0f} µs a step, {1e-9 / line.beta:.2f} GB/s")
    return [_row(size, measured[size], line) for size in sizes]


def _row(size: int, measured: Sequence[float], line: Line) -> Row:
    fastest, said = min(measured), line.seconds(size)
    return {
        "part": "all_reduce",
        "kind": "measured",
        "ranks": line.ranks,
        "bytes": size,
        "fitted": size in FITTED,
        "fastest_ms": round(1000 * fastest, 4),
        "ms": summary([1000 * one for one in measured]),
        "alpha_us": round(1e6 * line.alpha, 2),
        "gb_per_second": round(1e-9 / line.beta, 3),
        "model_ms": round(1000 * said, 4),
        "model_error": round(said / fastest - 1, 4),
        **gpu(torch.device("cpu")),
        **stamp(["torch"]),
    }


def _rank(rank: int, ranks: int, sizes: Sequence[int], repeats: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = dist.FileStore(f"{folder}/store", ranks)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks, timeout=_PATIENCE)
    try:
        tensors = {size: torch.ones(size // 4) for size in sizes}
        times = {size: _times(tensor) for size, tensor in tensors.items()}
        seconds: dict[int, list[float]] = {size: [] for size in sizes}
        for _ in range(repeats):
            for size, tensor in tensors.items():
                seconds[size].append(_window(tensor, times[size]))
    finally:
        dist.destroy_process_group()
    if rank == 0:
        write_json(Path(folder) / "seconds.json", seconds)


def _times(tensor: torch.Tensor) -> int:
    """How often a window repeats it, the same on every rank."""
    _window(tensor, 1)  # buffers and connections
    most = torch.tensor(_WINDOW_SECONDS / _window(tensor, 1))
    dist.all_reduce(most, dist.ReduceOp.MIN)
    return max(1, min(_MOST_TIMES, int(most)))


def _window(tensor: torch.Tensor, times: int) -> float:
    """Seconds of one all-reduce, of so many one after another."""
    tensor.fill_(1)  # or the sums of all windows would grow out of their type
    dist.barrier()
    began = time.perf_counter()
    for _ in range(times):
        dist.all_reduce(tensor)
    return (time.perf_counter() - began) / times
