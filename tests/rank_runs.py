"""Whole runs, evaluations and predictions as one of several ranks sees them."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

import fastuda
import fastuda.training.iteration as iteration_module
from fastuda.data.packing.pack import Packed
from fastuda.data.reading.faults import SampleError
from fastuda.distributed.ranks import Ranks
from fastuda.errors import FastudaError
from fastuda.evaluation.predict import Input, predict
from fastuda.recipe import Recipe
from fastuda.report.display import Display
from fastuda.runtime.stop import StopAskedError, StopRequest
from fastuda.training.run import train


@dataclass
class Told:
    """What one rank's run came to."""

    results: dict[str, Any] | None
    error: str
    console: str
    warnings: list[str]
    iterations: int


class StopAt(StopRequest):
    """Asked to stop from the given iteration of this process on."""

    def __init__(self, iteration: int) -> None:
        super().__init__()
        self._iteration = iteration

    @property
    def received(self) -> str | None:
        return "SIGUSR1" if _Counted.iterations >= self._iteration else None


class StopWhileScoring(StopRequest):
    """Asked to stop when an evaluation has shown something."""

    def watching(self, progress: Any) -> Any:
        def watched(done: int, total: int) -> None:
            progress(done, total)
            if _Counted.iterations > 0:
                self._signal = "SIGUSR1"
                raise StopAskedError("SIGUSR1: stopped")

        return watched


class _Counted:
    iterations = 0


def trained(
    ranks: Ranks,
    recipe: Recipe,
    path: Path,
    options: dict[str, Any],
    of_rank: dict[int, dict[str, Any]],
) -> Told:
    """A run; `of_rank` has what is special on some: `stop_at`, `stop_while_scoring`, `poisoned` (an iteration), and
    `loses` (the number of a target sample that cannot be read there)."""
    special = of_rank.get(ranks.rank, {})
    out, heard = io.StringIO(), _Heard()
    logging.getLogger("fastuda").addHandler(heard)
    _Counted.iterations = 0
    trains = iteration_module.adaptation_step

    def counted(state: Any, source: Any, *arguments: Any) -> Any:
        _Counted.iterations += 1
        if _Counted.iterations == special.get("poisoned"):
            with torch.no_grad():
                next(iter(state.worker.parameters())).fill_(float("nan"))
        return trains(state, source, *arguments)

    iteration_module.adaptation_step = counted
    reads = Packed.image_bytes

    def read(packed: Packed, index: int) -> Any:
        if index == special.get("loses") and packed.records[index].label is None:
            raise SampleError("damaged", Path("lost"), "is gone")
        return reads(packed, index)

    Packed.image_bytes = read  # type: ignore[method-assign]
    stop: StopRequest | None = None
    if "stop_at" in special:
        stop = StopAt(special["stop_at"])
    if "stop_while_scoring" in special:
        stop = StopWhileScoring()
    results, error = None, ""
    try:
        results = train(
            recipe, path, name="demo", device="cpu", display=Display(Console(file=out, width=300)), stop=stop, **options
        )
    except FastudaError as failure:
        error = f"{type(failure).__name__}: {failure}"
    finally:
        iteration_module.adaptation_step = trains
        Packed.image_bytes = reads  # type: ignore[method-assign]
        logging.getLogger("fastuda").removeHandler(heard)
    return Told(results, error, out.getvalue(), heard.lines, _Counted.iterations)


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            self.lines.append(record.getMessage())


def scored(ranks: Ranks, run: Path, out: Path) -> dict[str, Any]:
    """A run's model evaluated on all ranks, with all that an evaluation can say."""
    model = fastuda.load(run, device="cpu")
    result = fastuda.evaluate(model, boundary=True, save_predictions=out, display=False)
    assert result.boundary is not None
    assert result.confidence is not None
    return {
        "scores": {protocol: scores.to_json() for protocol, scores in result.by_protocol.items()},
        "boundary": {radius: (one.by_class, one.mean) for radius, one in result.boundary.f_score.items()},
        "trimap": {radius: one.to_json() for radius, one in result.boundary.trimap.items()},
        "confidence": (result.confidence.ece, result.confidence.num_pixels, result.confidence.overall.errors.tolist()),
    }


def predicted(ranks: Ranks, run: Path, images: list[Path], out: Path) -> tuple[list[str], int]:
    """Faults, and how many images this rank went through."""
    done = 0

    def progress(now: int, _total: int) -> None:
        nonlocal done
        done = now

    model = fastuda.load(run, device="cpu")
    faults: list[SampleError] = predict(model, [Input(path, path.stem) for path in images], out, progress, ranks=ranks)
    return [str(fault) for fault in faults], done


def conversation(ranks: Ranks) -> dict[str, Any]:
    """What ranks say to one another, once each."""
    numbers = torch.tensor([ranks.rank + 1, 10])
    ranks.sum_(numbers)
    lying = torch.full((2, 3, 4, 5), float(ranks.rank)).to(memory_format=torch.channels_last)
    wide: list[Tensor] = [lying, torch.tensor(ranks.rank), torch.full((3,), ranks.rank, dtype=torch.float64)]
    ranks.broadcast_(wide)
    order: list[str] = []
    with ranks.machine_first():
        order.append("in")
    return {
        "shared": ranks.shared(lambda: f"of {ranks.rank}"),
        "gathered": ranks.gathered(ranks.rank),
        "agreed": ranks.agreed("late" if ranks.rank == 2 else None if ranks.rank == 0 else "early"),
        "nobody": ranks.agreed(None),
        "asked": ranks.asks(ranks.rank == 1).answer(),
        "unasked": ranks.asks(False).answer(),
        "sum": numbers.tolist(),
        "broadcast": [float(one.double().abs().max()) for one in wide],
        "layout": wide[0].is_contiguous(memory_format=torch.channels_last),
        "order": order,
    }
