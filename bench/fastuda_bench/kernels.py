"""The five operations against what one would type in PyTorch: milliseconds, memory, share of the device's limit."""

from __future__ import annotations

import functools
import logging
import statistics
from collections.abc import Callable
from typing import Any

import torch
from rich import box
from rich.table import Table

from fastuda_bench.kernel_cases import Case, cases
from fastuda_bench.limits import Limits, measured_limits
from fastuda_bench.memory import peak_extra_bytes
from fastuda_bench.results import NOT_COMPARED, Row, doubt_of, failure, gpu, sound, stamp, summary
from fastuda_bench.timing import measure

log = logging.getLogger(__name__)
PASSES = ("forward", "backward", "both")


def kernel_rows(
    device: torch.device,
    *,
    repeats: int = 5,
    compiled: bool | None = None,
    small: bool = False,
    limits: Limits | None = None,
    keep: Callable[[list[Row]], None] = lambda rows: None,
) -> list[Row]:
    """A row for each operation, size and implementation.

    Milliseconds of forward, backward and both (backward is their difference: a graph cannot replay it
    alone), peak memory of both beyond the inputs, and the share of the device's limit, which is the
    shortest time the counted work could take there. `compiled` adds `torch.compile` of the formula (on
    a GPU by default). An implementation that fails has `error` in its row and no times; one whose result is
    not eager's says so in `disagreement` ("not compared" where eager failed). `keep` gets the rows so far after
    each implementation; `limits` saves measuring the device.
    """
    limits = limits or measured_limits(device)
    shared = {"limits": limits.to_json(), **gpu(device), **stamp(["torch", "triton", "numpy"])}
    rows: list[Row] = []
    for case in cases(device, small=small):
        expected: list[torch.Tensor] | None = None
        for name, call in _implementations(case, device, device.type == "cuda" if compiled is None else compiled):
            row: Row = {"question": "kernels", "operation": case.operation, "size": case.size}
            row["implementation"] = name
            try:
                found = case.trust(call())
                expected = found if name == "eager" else expected
                disagreement = _disagreement(found, expected)
                row |= {**_measured(case, call, device, limits, repeats), "disagreement": disagreement}
            except Exception as error:  # whatever a compiler, a driver or full memory raises: the next one may do
                row["error"] = failure(error)
                log.warning("%s by %s failed: %s", case.operation, name, error, exc_info=True)
            rows.append(row | shared)
            keep(rows)
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
        starts, gain = row["implementation"] == "eager", speedup(row, rows)
        name = f"{row['operation']}\n{row['size']}" if starts else ""
        doubt = doubt_of(row)
        if doubt is not None:
            table.caption = f"{table.caption or ''}\n{row['operation']} by {row['implementation']}: {doubt}".strip()
            table.caption_style = "red"
        if "both" not in row:
            table.add_row(name, row["implementation"], "failed", style="red")
            continue
        memory = row["peak_extra_bytes"]
        table.add_row(
            name,
            row["implementation"],
            *(_milliseconds(row[part]["median"]) if row[part] else "–" for part in PASSES),
            "–" if gain is None else f"{gain:.1f}",
            f"{100 * row['share_of_limit']:.0f} %",
            "–" if memory is None else f"{memory / 1e6:.1f}",
            style=None if doubt is None else "red",
        )
    return table


def _milliseconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3f}"


def speedup(row: Row, rows: list[Row]) -> float | None:
    """How many times faster than the eager formula of the same operation and size; None where either counts not."""
    same = ("operation", "size")
    counting = sound(rows)
    eager = [r for r in counting if r["implementation"] == "eager" and all(r[key] == row[key] for key in same)]
    if not eager or row not in counting:
        return None
    return float(eager[0]["both"]["median"]) / float(row["both"]["median"])


def _implementations(case: Case, device: torch.device, compiled: bool) -> list[tuple[str, Callable[[], Any]]]:
    calls = {name: call for name, call in case.implementations.items() if name != "triton" or device.type == "cuda"}
    if compiled:
        calls["compiled"] = torch.compile(case.implementations["eager"], dynamic=False)
    if device.type != "cuda" and "reference" not in calls and "triton" in case.implementations:
        calls["reference"] = case.implementations["triton"]  # the public function, which runs the reference here
    return list(calls.items())


def _disagreement(found: list[torch.Tensor], expected: list[torch.Tensor] | None) -> str | None:
    """How a result differs from eager's; no speed is worth reporting of a wrong one."""
    if expected is None:
        return NOT_COMPARED
    for actual, wanted in zip(found, expected, strict=True):
        try:
            torch.testing.assert_close(actual.float(), wanted.float(), rtol=2e-3, atol=1e-3)
        except AssertionError as error:
            return f"its result is not eager's: {' '.join(str(error).split())}"[:300]
    return None


def _measured(case: Case, call: Callable[[], Any], device: torch.device, limits: Limits, repeats: int) -> Row:
    both = functools.partial(_with_gradient, call, case) if case.inputs else call
    total = measure(both, device, repeats)
    row: Row = {
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
