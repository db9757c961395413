"""`fastuda bench train`: the real loop, and the paper's run at its pace."""

from __future__ import annotations

from typing import Annotated

import typer

from fastuda_cli import options
from fastuda_cli.bench_subject import BenchRecipe, Iterations, Out, Repeats, subject
from fastuda_cli.console import console, reported


def train(
    recipe: BenchRecipe = None,
    source: options.Source = None,
    target: options.Target = None,
    repeats: Repeats = 3,
    iterations: Iterations = None,
    price: Annotated[float | None, typer.Option(help="Of a GPU-hour: what the run costs.", min=0)] = None,
    json_file: Out = None,
    device: options.Device = None,
    set_: options.Settings = None,
) -> None:
    """The real training loop from packed files: pace, share of waiting for data, hours of the recipe's run."""
    with reported(), subject(recipe, source, target, device, set_) as bench:
        from fastuda_bench.made_data import bench_data
        from fastuda_bench.results import write_rows
        from fastuda_bench.training import table_of, training_row

        data, what = bench_data(bench.recipe, bench.folder, bench.task)
        row = training_row(
            bench.recipe,
            bench.name,
            data,
            what,
            bench.device,
            repeats=repeats,
            iterations=iterations or (100 if bench.device.type == "cuda" else 10),
            price=price,
        )
        console.print(table_of([row]))
        if json_file is not None:
            write_rows(json_file, bench.recorded([row]))
