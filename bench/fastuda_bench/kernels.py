"""The five operations against what one would type in PyTorch: milliseconds, memory, share of the device's limit."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from fastuda_bench.chart import bar_chart
from fastuda_bench.kernel_cases import Case, cases
from fastuda_bench.limits import Limits, measured_limits
from fastuda_bench.memory import peak_extra_bytes
from fastuda_bench.results import Row, gpu, stamp, summary
from fastuda_bench.timing import measure

PASSES = ("forward", "backward", "both")


def kernel_rows(
    device: torch.device, *, repeats: int = 5, compiled: bool | None = None, small: bool = False
) -> list[Row]:
    """A row for each operation, size and implementation.

    Milliseconds of forward, backward and both (backward is their difference: a graph cannot replay it
    alone), peak memory of both beyond the inputs, and the share of the device's limit, which is the
    shortest time the counted work could take there. `compiled` adds `torch.compile` of the formula (on
    a GPU by default). Implementations whose results disagree raise AssertionError before any is timed.
    """
    limits = measured_limits(device)
    shared = {"limits": vars(limits), **gpu(device), **stamp(["torch", "triton", "numpy"])}
    rows = []
    for case in cases(device, small=small):
        calls = _implementations(case, device, device.type == "cuda" if compiled is None else compiled)
        _agree(case, calls)
        rows += [_row(case, name, call, device, limits, repeats) | shared for name, call in calls.items()]
    return rows


def main(
    device: torch.device, *, repeats: int = 5, compiled: bool | None = None, chart: Path | None = None
) -> list[Row]:
    """Measure, print a table, draw the chart if a path is given, and return the rows."""
    rows = kernel_rows(device, repeats=repeats, compiled=compiled)
    Console().print(table_of(rows))
    if chart is not None:
        bar_chart(chart, rows)
    return rows


def table_of(rows: list[Row]) -> Table:
    """The rows as a table; each operation's `eager` is what the others are compared with."""
    title = f"kernels on {rows[0]['gpu'] or rows[0]['cpu']}, torch {rows[0]['versions']['torch']}; milliseconds"
    table = Table(title=title, box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("operation", min_width=24)
    table.add_column("by", no_wrap=True)
    for column in ("forward", "backward", "both", "× eager", "limit", "peak MB"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        memory = row["peak_extra_bytes"]
        starts = row["implementation"] == "eager"
        table.add_row(
            f"{row['operation']}\n{row['size']}" if starts else "",
            row["implementation"],
            *(_milliseconds(row[name]["median"]) if row[name] else "–" for name in PASSES),
            f"{speedup(row, rows):.1f}",
            f"{100 * row['share_of_limit']:.0f} %",
            "–" if memory is None else f"{memory / 1e6:.1f}",
        )
    return table


def _milliseconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3f}"


def speedup(row: Row, rows: list[Row]) -> float:
    """How many times faster than the eager formula of the same operation and size."""
    same = ("operation", "size")
    eager = next(r for r in rows if r["implementation"] == "eager" and all(r[key] == row[key] for key in same))
    return float(eager["both"]["median"]) / float(row["both"]["median"])


def _implementations(case: Case, device: torch.device, compiled: bool) -> dict[str, Callable[[], Any]]:
    calls = {name: call for name, call in case.implementations.items() if name != "triton" or device.type == "cuda"}
    if compiled:
        calls["compiled"] = torch.compile(case.implementations["eager"], dynamic=False)
    if device.type != "cuda" and "reference" not in calls:
        calls["reference"] = case.implementations["triton"]  # the public function, which runs the reference here
    return calls


def _agree(case: Case, calls: dict[str, Callable[[], Any]]) -> None:
    """No speed is worth reporting of a wrong result."""
    expected = case.trust(calls["eager"]())
    for name, call in calls.items():
        for actual, wanted in zip(case.trust(call()), expected, strict=True):
            torch.testing.assert_close(
                actual.float(), wanted.float(), rtol=2e-3, atol=1e-3, msg=f"{case.operation}: {name} is not eager"
            )


def _row(case: Case, name: str, call: Callable[[], Any], device: torch.device, limits: Limits, repeats: int) -> Row:
    both = functools.partial(_with_gradient, call, case) if case.inputs else call
    total = measure(both, device, repeats)
    row: Row = {
        "question": "kernels",
        "operation": case.operation,
        "size": case.size,
        "implementation": name,
        "captured": total.captured,
        "both": summary(total.milliseconds),
        "forward": None,
        "backward": None,
        "work": vars(case.work),
        "share_of_limit": limits.milliseconds(case.work) / statistics.median(total.milliseconds),
        "peak_extra_bytes": peak_extra_bytes(both, device),
    }
    if case.inputs:
        forward = measure(call, device, repeats).milliseconds
        pairs = zip(total.milliseconds, forward, strict=True)
        row["forward"], row["backward"] = summary(forward), summary([max(0.0, t - f) for t, f in pairs])
    return row


def _with_gradient(call: Callable[[], Any], case: Case) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(call(), case.inputs, case.upstream)
