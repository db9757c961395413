"""Functions run by several processes at once, as ranks of one job over Gloo."""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from fastuda.distributed.ranks import joined

_SECONDS = 120.0
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["torch", "fastuda.training.run", "in_ranks"])


def in_ranks(size: int, folder: Path, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `function(ranks, *arguments)` returns on every rank, in order; AssertionError with what one of them raised.

    The function has to be one that another process can import.
    """
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    processes = [
        _context.Process(target=_rank, args=(rank, size, store.port, folder, function, arguments))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    until = time.monotonic() + _SECONDS
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
    late = [process for process in processes if process.is_alive()]
    for process in late:
        process.kill()
    told = [(folder / f"{rank}.txt").read_text() for rank in range(size) if (folder / f"{rank}.txt").exists()]
    assert not told, "\n".join(told)
    assert not late, f"{len(late)} of {size} ranks did not end"
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(size)]


def _rank(
    rank: int, size: int, port: int, folder: Path, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    try:
        with joined(torch.device("cpu")) as ranks:
            result = function(ranks, *arguments)
        torch.save(result, folder / f"{rank}.pt")
    except BaseException:
        (folder / f"{rank}.txt").write_text(f"rank {rank}: {traceback.format_exc()}")
