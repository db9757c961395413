"""`fastuda bench loader`: the data path alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastuda_cli import options
from fastuda_cli.bench_subject import BenchRecipe, Iterations, Out, Repeats, subject
from fastuda_cli.console import console, reported


def loader(
    recipe: BenchRecipe = None,
    source: options.Source = None,
    target: options.Target = None,
    threads: Annotated[str | None, typer.Option(help="DALI threads to try: 1,2,4; the recipe's by default.")] = None,
    step_file: Annotated[
        Path | None,
        typer.Option(
            "--step", help="Results of `bench step`: says how many times its need is met.", parser=options.path
        ),
    ] = None,
    repeats: Repeats = 3,
    iterations: Iterations = None,
    json_file: Out = None,
    device: options.Device = None,
    set_: options.Settings = None,
) -> None:
    """Images a second of the data path alone, and how many iterations it can feed."""
    with reported(), subject(recipe, source, target, device, set_, num_threads=threads, trains=False) as bench:
        from fastuda_bench.compare import fastest_ms
        from fastuda_bench.loader import loader_rows, table_of
        from fastuda_bench.made_data import bench_data
        from fastuda_bench.results import write_rows

        step_ms = None if step_file is None else fastest_ms(step_file, bench.name, bench.recipe.train.batch_size)
        data, what = bench_data(bench.recipe, bench.folder, bench.task)
        rows = loader_rows(
            bench.recipe,
            bench.name,
            data,
            what,
            bench.device,
            threads=bench.threads,
            repeats=repeats,
            iterations=iterations or 100,
            step_ms=step_ms,
        )
        console.print(table_of(rows))
        if json_file is not None:
            write_rows(json_file, bench.recorded(rows))
