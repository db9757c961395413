"""What is this device, and what can it do at most? Name, power, clocks, memory; copies, products, convolutions."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.table import Table

from fastuda.errors import FastudaError
from fastuda.recipe import Recipe
from fastuda_bench.limits import Limits, measured_limits
from fastuda_bench.results import Row, gpu, stamp
from fastuda_bench.work import Counted, counted


def probe_row(
    device: torch.device,
    recipe: Recipe | None = None,
    name: str | None = None,
    keep: Callable[[Row], None] = lambda row: None,
) -> Row:
    """The device's rates on random data and, with a recipe, the count of its iteration, as one row.

    The count takes a processor's core for half a minute and goes on in a process of its own while the device
    is measured. `keep` gets the row twice: with the rates, and with the count.
    """
    with nullcontext() if recipe is None else ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        under_way: Future[Counted] | None = None
        if pool is not None and recipe is not None:
            under_way = pool.submit(counted, recipe, device)
        limits = measured_limits(device)
        row: Row = {
            "question": "probe",
            "limits": limits.to_json(),
            **_properties(device),
            **gpu(device),
            **stamp(["torch", "triton", "numpy"]),
        }
        keep(row)
        if under_way is not None:
            found = under_way.result()
            row |= {"recipe": name, "roofline_ms": round(found.roofline_ms(limits), 4), **found.to_json()}
            keep(row)
    return row


def read_probe(path: Path, recipe: str | None, settings: list[str]) -> tuple[Limits, Counted | None]:
    """The rates of a file of `bench probe`, and the count if it is of this recipe with these settings.

    Raises FastudaError when the file holds no rates.
    """
    try:
        (row,) = json.loads(path.read_text())
        limits = Limits.of_json(row["limits"])
        same = recipe is not None and (row.get("recipe"), row.get("settings")) == (recipe, settings)
        return limits, Counted.of_json(row) if same else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FastudaError(f"{path}: holds no rates of `fastuda bench probe --json {path}` ({error})") from error


def table_of(row: Row) -> Table:
    """The row as a table."""
    table = Table(title=f"what {row['gpu'] or row['cpu']} can do", box=box.SIMPLE, show_header=False)
    for _ in range(2):
        table.add_column()
    limits = row["limits"]
    lines = {
        "memory": _scaled(row["memory_bytes"], 2**30, "GiB"),
        "power limit": _scaled(row["power_limit_w"], 1, "W"),
        "clock, memory clock": f"{row['sm_clock_mhz'] or '–'} MHz, {row['memory_clock_mhz'] or '–'} MHz",
        "copy, read and write": _scaled(limits["bytes"], 1e9, "GB/s"),
        "matrix product": _scaled(limits["matrix"], 1e12, "TFLOP/s"),
        "3×3 convolution": _scaled(limits["convolution"], 1e12, "TFLOP/s"),
    }
    if "roofline_ms" in row:
        lines[f"iteration of {row['recipe']}"] = f"{row['work']['flops'] / 1e12:.3g} TFLOP"
        lines["its roofline, BatchNorm apart"] = f"{row['roofline_ms']:.1f} ms"
    for what, value in lines.items():
        table.add_row(what, value)
    return table


def _properties(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"memory_bytes": None, "multiprocessors": None, "capability": None, "cudnn": None}
    found = torch.cuda.get_device_properties(device)
    return {
        "memory_bytes": found.total_memory,
        "multiprocessors": found.multi_processor_count,
        "capability": f"{found.major}.{found.minor}",
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
    }


def _scaled(value: float | None, unit: float, name: str) -> str:
    return "–" if value is None else f"{value / unit:,.4g} {name}"
