"""How long will the training take? The real loop from packed files, its waiting for data, the recipe's whole run."""

from __future__ import annotations

import torch
from rich import box
from rich.table import Table

from fastuda.data.datasets import Datasets
from fastuda.model.passes import Passes
from fastuda.recipe import Recipe
from fastuda.recipe.paper import PAPER_HOURS, same_work
from fastuda.runtime.fast_path import FastPath
from fastuda.runtime.switches import configure
from fastuda.training.loop import Loop
from fastuda.training.readback import Readback
from fastuda_bench.begun import begun
from fastuda_bench.results import Row, gpu, run_of, stamp, summary
from fastuda_bench.step import NUM_DOMAINS

_WARM_UP = 10


def training_row(
    recipe: Recipe,
    name: str,
    data: Datasets,
    what: str,
    device: torch.device,
    *,
    repeats: int,
    iterations: int,
    price: float | None = None,
) -> Row:
    """One row: windows of `iterations` adaptation iterations, loading, training and reading losses back.

    Weights are random and nothing is evaluated or saved. The projection is of the median window to the recipe's own
    number of iterations, without warm-up and evaluations; the paper's hours stand beside it where the work is the
    same. `price` is in money a GPU-hour, and counts on a GPU alone.
    """
    configure(recipe.runtime, device)
    fast, passes = FastPath.of(recipe.runtime, device), Passes.of(recipe, device)
    state = begun(recipe, fast, device, _WARM_UP + repeats * iterations)
    loop, readback = Loop(state, data, recipe, passes, fast, "adaptation"), Readback(state)
    for _ in range(min(_WARM_UP, iterations)):
        loop()
    milliseconds, waited = [], []
    for window in range(repeats):
        readback.restart()
        loop.take_waited()
        for _ in range(iterations):
            readback.add(loop())
        readback.close((window + 1) * iterations, loop.take_waited())
        (reading,) = readback.all()
        milliseconds.append(1000 / reading.iterations_per_second)
        waited.append(100 * reading.waited)
    ms = summary(milliseconds)
    hours = ms["median"] * recipe.train.iterations / 3_600_000
    return {
        "question": "train",
        "recipe": name,
        "data": what,
        "pack": data.source.format,
        "batch_size": recipe.train.batch_size,
        "threads": recipe.runtime.loader_threads,
        "way": loop.way,
        "iterations": iterations,
        "ms": ms,
        "images_per_second": round(1000 * NUM_DOMAINS * recipe.train.batch_size / ms["median"], 2),
        "percent_waiting": summary(waited),
        "run_iterations": recipe.train.iterations,
        "hours": round(hours, 4),
        "paper_hours": PAPER_HOURS if same_work(recipe) else None,
        "price_an_hour": price,
        "cost": None if price is None or device.type != "cuda" else round(hours * price, 2),
        **gpu(device),
        **stamp(["torch", "triton", "nvidia-dali-cuda130", "numpy"]),
    }


def table_of(rows: list[Row]) -> Table:
    """Rows as a table."""
    first = rows[0]
    where = first["gpu"] or f"{first['cores']} cores of {first['cpu']}"
    title = f"training loop of {first['recipe']}, {first['data']} packed as {first['pack']}, {first['way']}, {where}"
    table = Table(title=title, box=box.SIMPLE)
    columns = ("ms/it", "spread", "img/s", "waiting for data", "the recipe's run", "paper", "GPU-hours × price")
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            f"{row['ms']['median']:.1f}",
            f"{row['ms']['spread']:.1f}",
            f"{row['images_per_second']:.1f}",
            f"{row['percent_waiting']['median']:.1f} %",
            run_of(row),
            "–" if row["paper_hours"] is None else f"{row['paper_hours']} h",
            "–" if row["cost"] is None else f"{row['cost']:.2f}",
        )
    return table
