"""How long a function takes: medians of repeats, on a GPU as a CUDA graph where that can be had."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

_TARGET_SECONDS = 0.2
_MAX_CALLS = 200


@dataclass(frozen=True)
class Times:
    """Milliseconds of each repeat, and whether calls were replays of a CUDA graph."""

    milliseconds: list[float]
    captured: bool


def measure(function: Callable[[], object], device: torch.device, repeats: int) -> Times:
    """Time `function` after a warm-up; a repeat is the mean of as many calls as take a fifth of a second.

    On a GPU one call is captured into a CUDA graph and replayed, as a training step would, so that what
    Python and the launches cost does not count; a function that cannot be captured is called instead.
    """
    function()
    if device.type != "cuda":
        return Times([_on_cpu(function) for _ in range(repeats)], captured=False)
    graph = _captured(function)
    call = function if graph is None else graph.replay
    calls = _calls_that_last(call)
    return Times([_on_gpu(call, calls) for _ in range(repeats)], captured=graph is not None)


def _on_cpu(function: Callable[[], object]) -> float:
    began, calls = time.perf_counter(), 0
    while True:
        function()
        calls += 1
        seconds = time.perf_counter() - began
        if seconds > _TARGET_SECONDS or calls == _MAX_CALLS:
            return 1000 * seconds / calls


def _captured(function: Callable[[], object]) -> torch.cuda.CUDAGraph | None:
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph, own_stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph):
            function()
    except RuntimeError:
        torch.cuda.set_stream(own_stream)  # a capture that fails leaves its own behind
        torch.cuda.synchronize()
        return None
    return graph


def _calls_that_last(call: Callable[[], object]) -> int:
    milliseconds = _on_gpu(call, 3)
    return max(1, min(_MAX_CALLS, round(1000 * _TARGET_SECONDS / max(milliseconds, 1e-3))))


def _on_gpu(call: Callable[[], object], calls: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    for _ in range(calls):
        call()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / calls
