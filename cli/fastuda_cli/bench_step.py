"""`fastuda bench step`: one iteration, rung by rung."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastuda_cli import options
from fastuda_cli.bench_subject import BenchRecipe, Iterations, Out, Repeats, subject
from fastuda_cli.console import console, reported, say


def step(
    recipe: BenchRecipe = None,
    prepared: Annotated[
        bool, typer.Option("--prepared", help="Take the first batches of the recipe's data; noise otherwise.")
    ] = False,
    source: options.Source = None,
    target: options.Target = None,
    repeats: Repeats = 3,
    iterations: Iterations = None,
    json_file: Out = None,
    chart: Annotated[Path | None, typer.Option(help="Also draw ladder and roofline to this PNG.")] = None,
    profile: Annotated[
        Path | None,
        typer.Option(help="Write a trace and the ten most expensive operations of the last rung to this folder."),
    ] = None,
    device: options.Device = None,
    set_: options.Settings = None,
) -> None:
    """Milliseconds of one iteration, from the step as one would type it to fastuda's, each gain by itself."""
    with reported(), subject(recipe, source, target, device, set_) as bench:
        from fastuda.errors import UsageError
        from fastuda_bench.ladder import refuse_switches
        from fastuda_bench.ladder_chart import ladder_chart
        from fastuda_bench.made_data import bench_batches
        from fastuda_bench.results import write_rows
        from fastuda_bench.step import step_rows, table_of, verdict_of

        refuse_switches(set_ or [])
        if not prepared and (source is not None or target is not None):
            raise UsageError("--source and --target are read with --prepared alone; without it batches are noise")
        batches = bench_batches(bench.recipe, bench.device, bench.folder, bench.task, prepared=prepared)
        rows = step_rows(
            bench.recipe,
            bench.name,
            batches,
            bench.device,
            repeats=repeats,
            iterations=iterations or (100 if bench.device.type == "cuda" else 3),
            profile=profile,
            report=say,
        )
        rows = [row | {"data": "prepared" if prepared else "noise"} for row in rows]
        console.print(table_of(rows))
        say(verdict_of(rows))
        if chart is not None:
            ladder_chart(chart, rows)
        if json_file is not None:
            write_rows(json_file, bench.recorded(rows))
