"""How many images a second does the data path give, and how many iterations can it feed?"""

from __future__ import annotations

import time

import torch
from rich import box
from rich.table import Table

from fastuda.data.datasets import Datasets
from fastuda.data.loading.training_loader import TrainingLoader
from fastuda.recipe import Recipe
from fastuda_bench.card.targets import LOADER_TIMES
from fastuda_bench.results import Row, gpu, stamp, summary
from fastuda_bench.step import NUM_DOMAINS

_WARM_UP = 5


def loader_rows(
    recipe: Recipe,
    name: str,
    data: Datasets,
    what: str,
    device: torch.device,
    *,
    threads: tuple[int, ...],
    repeats: int,
    iterations: int,
    step_ms: float | None = None,
) -> list[Row]:
    """A row a number of DALI threads: both domains' loaders alone, from packed files to batches on the device.

    A repeat is a window of `iterations` batches of each domain. `step_ms` is what an iteration of training
    takes; the row then says how many times its need is met.
    """
    rows = []
    for num_threads in threads:
        runtime = recipe.runtime.model_copy(update={"loader_threads": num_threads})
        own = recipe.model_copy(update={"runtime": runtime})
        loaders = [
            TrainingLoader(data.source, "source", own, device),
            TrainingLoader(data.target, "target", own, device),
        ]
        rates, cpu = _windows(loaders, device, repeats, iterations)
        batch = NUM_DOMAINS * recipe.train.batch_size
        rate = summary(rates)
        rows.append(
            {
                "question": "loader",
                "recipe": name,
                "data": what,
                "pack": data.source.format,
                "threads": num_threads,
                "batch_size": recipe.train.batch_size,
                "iterations_per_second": rate,
                "images_per_second": summary([batch * one for one in rates]),
                "cpu_ms_an_iteration": summary(cpu),
                "cores_used": round(rate["median"] * summary(cpu)["median"] / 1000, 2),
                "step_ms": step_ms,
                "times_the_need": None if step_ms is None else round(rate["median"] * step_ms / 1000, 2),
                **gpu(device),
                **stamp(["torch", "nvidia-dali-cuda130", "numpy"]),
            }
        )
    return rows


def table_of(rows: list[Row]) -> Table:
    """The rows as a table."""
    first = rows[0]
    where = first["gpu"] or f"{first['cores']} cores of {first['cpu']}"
    title = (
        f"loader of {first['recipe']}, {first['data']} packed as {first['pack']}, batch {first['batch_size']}, {where}"
    )
    table = Table(title=title, box=box.SIMPLE)
    for column in ("threads", "img/s", "it/s", "spread", "CPU ms/it", "cores used", "× the step's need"):
        table.add_column(column, justify="right")
    for row in rows:
        times, rate = row["times_the_need"], row["iterations_per_second"]
        table.add_row(
            str(row["threads"]),
            f"{row['images_per_second']['median']:.1f}",
            f"{rate['median']:.2f}",
            f"{rate['spread']:.2f}",
            f"{row['cpu_ms_an_iteration']['median']:.1f}",
            f"{row['cores_used']:.2f}",
            "–" if times is None else f"{times:.2f}{'' if times >= LOADER_TIMES else f' (want {LOADER_TIMES:g})'}",
        )
    return table


def _windows(
    loaders: list[TrainingLoader], device: torch.device, repeats: int, iterations: int
) -> tuple[list[float], list[float]]:
    """Iterations a second and CPU milliseconds an iteration of each window."""

    def load(count: int) -> None:
        for _ in range(count):
            for loader in loaders:
                next(loader)
        if device.type == "cuda":
            torch.cuda.synchronize()

    load(_WARM_UP)
    rates, cpu = [], []
    for _ in range(repeats):
        began, cpu_began = time.perf_counter(), time.process_time()
        load(iterations)
        rates.append(iterations / (time.perf_counter() - began))
        cpu.append(1000 * (time.process_time() - cpu_began) / iterations)
    return rates, cpu
