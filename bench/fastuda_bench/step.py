"""How long is an iteration, rung by rung? Milliseconds, share of the device's rate, memory, launches."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from fastuda.data.loading.batch import DomainBatch
from fastuda.errors import FastudaError, UsageError
from fastuda.recipe import Recipe
from fastuda.runtime.fast_path import FastPath
from fastuda_bench.agreement import COMPARED, compared
from fastuda_bench.ladder import Climbed, Rung, climbed, recipe_at, rungs_on
from fastuda_bench.limits import Limits, Work, measured_limits
from fastuda_bench.memory import peak_extra_bytes
from fastuda_bench.profile import launches, write_profile
from fastuda_bench.results import Row, failure, gpu, stamp, summary
from fastuda_bench.work import Counted, counted

NUM_DOMAINS = 2
log = logging.getLogger(__name__)


def step_rows(
    recipe: Recipe,
    name: str,
    batches: tuple[DomainBatch, DomainBatch],
    device: torch.device,
    *,
    repeats: int,
    iterations: int,
    rungs: tuple[Rung, ...] | None = None,
    profile: Path | None = None,
    limits: Limits | None = None,
    work: Counted | None = None,
    report: Callable[[str], None] = lambda line: None,
    keep: Callable[[list[Row]], None] = lambda rows: None,
) -> list[Row]:
    """A row a rung of the ladder, for adaptation iterations of the recipe at its batch size.

    A repeat is a window of `iterations` iterations after a warm-up. A rung that fails costs its own row alone,
    which then holds `error` and no times; one whose first losses are not those of `eager-fp32` says so in
    `disagreement` ("not compared" without that rung). `keep` gets the rows so far after each rung. `profile` is
    a folder for a Chrome trace and a table of the last rung; `limits` and `work` save measuring and counting.
    """
    limits = limits or measured_limits(device)
    # Counted once: what the rungs set out with is the same, and what they save of it is their gain.
    work = work or counted(recipe, device)
    shared = {
        "recipe": name,
        "batch_size": recipe.train.batch_size,
        "views": [recipe.views.source_size, recipe.views.target_size, recipe.views.crop_size],
        "limits": limits.to_json(),
        "work": vars(work.work),
        "roofline_ms": round(work.roofline_ms(limits), 4),
        **stamp(["torch", "triton", "numpy"]),
    }
    rows: list[Row] = []
    chosen = rungs or rungs_on(device)

    def kept(row: Row) -> list[Row]:
        together = compared([*rows, row | gpu(device) | shared])
        keep(together)
        return together

    for rung in chosen:
        report(f"{rung.name}: {rung.adds}")
        row: Row = {"question": "step", "rung": rung.name, "adds": rung.adds}
        try:
            folder = profile if rung is chosen[-1] else None
            _measure(row, recipe, rung, batches, device, work.work, limits, repeats, iterations, folder, kept)
        except Exception as error:  # whatever a compiler, a driver or full memory raises: the next rung may do
            row["error"] = failure(error)
            log.warning("%s failed: %s", rung.name, error, exc_info=not isinstance(error, FastudaError))
        rows = kept(row)
    return rows


def rungs_named(names: Sequence[str], device: torch.device) -> tuple[Rung, ...]:
    """The device's rungs of these names, in the ladder's order; all of them for none. Raises UsageError."""
    known = rungs_on(device)
    for name in names:
        if name not in [rung.name for rung in known]:
            raise UsageError(f"--rung {name}: on this device there are {', '.join(rung.name for rung in known)}")
    return tuple(rung for rung in known if rung.name in names or not names)


def _measure(
    row: Row,
    recipe: Recipe,
    rung: Rung,
    batches: tuple[DomainBatch, DomainBatch],
    device: torch.device,
    work: Work,
    limits: Limits,
    repeats: int,
    iterations: int,
    profile: Path | None,
    timed: Callable[[Row], object],
) -> None:
    """Add to the row what one rung takes, and the losses of its first iterations.

    `timed` gets it before it is profiled, which may fail or take long and then costs the profile alone.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with climbed(recipe, rung, batches, device) as step:
        began = time.perf_counter()
        losses = [{term: float(loss) for term, loss in step.call().items()}]
        ready = time.perf_counter() - began
        losses += [{term: float(loss) for term, loss in step.call().items()} for _ in range(COMPARED - 1)]
        ms = summary(_windows(step.call, device, repeats, iterations))
        seconds = ms["median"] / 1000
        amp = FastPath.of(recipe_at(recipe, rung).runtime, device).amp
        row |= {
            "way": step.way,
            "precision": str(amp or torch.float32).removeprefix("torch."),
            "ms": ms,
            "images_per_second": round(NUM_DOMAINS * recipe.train.batch_size / seconds, 2),
            "flops_per_second": work.flops / seconds,
            "mfu": work.flops / seconds / limits.flops,
            "seconds_to_first": round(ready, 2),
            "peak_bytes": _peak_bytes(step, device),
            "launches": None,
            "losses": losses,
        }
        timed(row)
        try:
            row["launches"] = launches(step.call, device)
            if profile is not None:
                write_profile(step.call, device, profile, rung.name)
        except Exception as error:  # a profiler that the driver forbids or that lacks its library
            log.warning("%s: no profile: %s", rung.name, failure(error))


def _peak_bytes(step: Climbed, device: torch.device) -> int | None:
    """Weights, optimiser and the most that an iteration held besides; None where a CPU's system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    extra = peak_extra_bytes(step.call, device)
    return None if extra is None else extra + sum(tensor.nbytes for tensor in step.state.tensors())


def _windows(call: Callable[[], object], device: torch.device, repeats: int, iterations: int) -> list[float]:
    """Milliseconds an iteration, a value a window; the last of a warm-up window ends before the first begins."""
    milliseconds = []
    for _ in range(min(iterations, 10)):
        call()
    for _ in range(repeats):
        if device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            start.record()
            for _ in range(iterations):
                call()
            end.record()
            end.synchronize()
            milliseconds.append(float(start.elapsed_time(end)) / iterations)
        else:
            began = time.perf_counter()
            for _ in range(iterations):
                call()
            milliseconds.append(1000 * (time.perf_counter() - began) / iterations)
    return milliseconds
