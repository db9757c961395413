"""How long is an iteration, rung by rung? Milliseconds, share of the device's rate, memory, launches."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich import box
from rich.table import Table

from fastuda.data.batch import DomainBatch
from fastuda.errors import FastudaError
from fastuda.fast_path import FastPath
from fastuda.recipe import Recipe
from fastuda_bench.ladder import RUNGS, Climbed, Rung, climbed, recipe_at, rungs_on
from fastuda_bench.limits import Limits, Work, measured_limits
from fastuda_bench.memory import peak_extra_bytes
from fastuda_bench.plain_operations import plain_operations
from fastuda_bench.profile import launches, write_profile
from fastuda_bench.results import Row, gpu, stamp, summary
from fastuda_bench.work import iteration_work

NUM_DOMAINS = 2
_TOLERANCE = {torch.float32: 2e-2, torch.bfloat16: 8e-2, torch.float16: 5e-2}
"""Relative difference of the first iterations' losses to eager fp32's that a rung's precision explains."""
_COMPARED = 2
"""Iterations whose losses are compared: the second one's come of the first one's gradients and step."""


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
    report: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """A row a rung of the ladder, for adaptation iterations of the recipe at its batch size.

    A repeat is a window of `iterations` iterations after a warm-up. A rung whose first losses are not those
    of the first rung raises FastudaError: no speed is reported of a wrong result. `profile` is a folder for
    a Chrome trace and a table of the last rung.
    """
    limits = measured_limits(device)
    shared = {
        "recipe": name,
        "batch_size": recipe.train.batch_size,
        "views": [recipe.views.source_size, recipe.views.target_size, recipe.views.crop_size],
        "limits": vars(limits),
        **stamp(["torch", "triton", "numpy"]),
    }
    rows: list[Row] = []
    expected: list[dict[str, float]] = []
    chosen = rungs or rungs_on(device)
    # Counted once: what the rungs set out with is the same, and what they save of it is their gain.
    with plain_operations():
        work = iteration_work(recipe_at(recipe, RUNGS[0]), device)
    for rung in chosen:
        report(f"{rung.name}: {rung.adds}")
        folder = profile if rung is chosen[-1] else None
        row, expected = _measured(recipe, rung, batches, device, work, limits, repeats, iterations, folder, expected)
        rows.append(row | gpu(device) | shared)
    return rows


def table_of(rows: list[Row]) -> Table:
    """The rows as a table: time, gain over the rung below and over the baselines, share of the device's rate."""
    first = rows[0]
    title = (
        f"one iteration of {first['recipe']}, batch {first['batch_size']}, on {first['gpu'] or first['cpu']}, "
        f"torch {first['versions']['torch']}"
    )
    table = Table(title=title, box=box.SIMPLE, padding=(0, 1, 0, 0))
    columns = ["rung", "ms", "spread", "× below", "× eager", "TFLOP/s", "MFU", "peak MB"]
    columns += ["launches"] if first["launches"] is not None else []
    for column in columns:
        table.add_column(column, justify="left" if column == "rung" else "right", no_wrap=True)
    for row, below in zip(rows, [rows[0], *rows[:-1]], strict=True):
        cells = [
            row["rung"],
            f"{row['ms']['median']:.1f}",
            f"{row['ms']['spread']:.1f}" if row["ms"]["repeats"] > 1 else "–",
            f"{speedup(row, below):.2f}",
            f"{speedup(row, first):.2f}",
            f"{row['flops_per_second'] / 1e12:.3g}",
            f"{100 * row['mfu']:.0f} %",
            "–" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:,.0f}",
        ]
        table.add_row(*cells, *([str(row["launches"])] if row["launches"] is not None else []))
    return table


def verdict_of(rows: list[Row]) -> str:
    """The fastest rung against the two baselines, and what makes the figures doubtful, if anything does."""
    best = min(rows, key=lambda row: float(row["ms"]["median"]))
    against = [row for row in rows if row["rung"] in ("eager-fp32", "amp-nhwc") and row is not best]
    gains = " and ".join(f"{speedup(best, row):.2f} × {row['rung']}" for row in against)
    rate = f"{best['images_per_second']:.1f} images a second"
    said = f"fastest: {best['rung']}, {best['ms']['median']:.1f} ms, {rate}" + (f"; {gains}" if gains else "")
    if any(row["mfu"] > 1.05 or row["ms"]["spread"] > 0.3 * row["ms"]["median"] for row in rows):
        said += "\nthese figures are noisy (above the device's own rate, or far apart): was the machine busy?"
    return said


def speedup(row: Row, other: Row) -> float:
    """How many times as fast as another row."""
    return float(other["ms"]["median"]) / float(row["ms"]["median"])


def _measured(
    recipe: Recipe,
    rung: Rung,
    batches: tuple[DomainBatch, DomainBatch],
    device: torch.device,
    work: Work,
    limits: Limits,
    repeats: int,
    iterations: int,
    profile: Path | None,
    expected: list[dict[str, float]],
) -> tuple[Row, list[dict[str, float]]]:
    """One rung's row, once its first losses are those of the first rung, which come back too."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with climbed(recipe, rung, batches, device) as step:
        began = time.perf_counter()
        losses = [{term: float(loss) for term, loss in step.call().items()}]
        ready = time.perf_counter() - began
        losses += [{term: float(loss) for term, loss in step.call().items()} for _ in range(_COMPARED - 1)]
        _agree(rung, losses, expected or losses, FastPath.of(recipe_at(recipe, rung).runtime, device).amp)
        row = _row(rung, step, _windows(step.call, device, repeats, iterations), work, limits, recipe)
        row |= {
            "seconds_to_first": round(ready, 2),
            "peak_bytes": _peak_bytes(step, device),
            "launches": launches(step.call, device),
            "losses": losses[0],
        }
        if profile is not None:
            write_profile(step.call, device, profile, rung.name)
    return row, expected or losses


def _peak_bytes(step: Climbed, device: torch.device) -> int | None:
    """Weights, optimiser and the most that an iteration held besides; None where a CPU's system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    extra = peak_extra_bytes(step.call, device)
    return None if extra is None else extra + sum(tensor.nbytes for tensor in step.state.tensors())


def _agree(
    rung: Rung, found: list[dict[str, float]], expected: list[dict[str, float]], amp: torch.dtype | None
) -> None:
    tolerance = _TOLERANCE[amp or torch.float32]
    for i, (losses, wanted) in enumerate(zip(found, expected, strict=True)):
        for term, value in wanted.items():
            # Written so that NaN does not pass.
            if not abs(losses[term] - value) <= tolerance * max(abs(value), 0.1):
                raise FastudaError(
                    f"{rung.name}: the loss {term} of iteration {i + 1} is {losses[term]:.5f}, that of the first rung "
                    f"{value:.5f}: no speed is reported of a wrong result"
                )


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


def _row(rung: Rung, step: Climbed, times: list[float], work: Work, limits: Limits, recipe: Recipe) -> Row:
    ms = summary(times)
    seconds = ms["median"] / 1000
    return {
        "question": "step",
        "rung": rung.name,
        "adds": rung.adds,
        "way": step.way,
        "ms": ms,
        "images_per_second": round(NUM_DOMAINS * recipe.train.batch_size / seconds, 2),
        "work": vars(work),
        "flops_per_second": work.flops / seconds,
        "mfu": work.flops / seconds / limits.flops,
    }
