"""`fastuda bench step`: one iteration, rung by rung."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastuda_cli import options
from fastuda_cli.bench_subject import BenchRecipe, Iterations, Out, Rates, Repeats, subject
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
    rung: Annotated[
        list[str] | None, typer.Option("--rung", help="Only this rung of the ladder; can be given several times.")
    ] = None,
    limits: Rates = None,
    json_file: Out = None,
    chart: Annotated[
        Path | None, typer.Option(help="Also draw ladder and roofline to this PNG.", parser=options.path)
    ] = None,
    profile: Annotated[
        Path | None,
        typer.Option(
            help="Write a trace and the ten most expensive operations of the last rung to this folder.",
            parser=options.path,
        ),
    ] = None,
    device: options.Device = None,
    set_: options.Settings = None,
) -> None:
    """Milliseconds of one iteration, from the step as one would type it to fastuda's, each gain by itself."""
    counted = limits is not None
    with reported(), subject(recipe, source, target, device, set_, trains=not counted) as bench:
        from fastuda.errors import UsageError
        from fastuda_bench.draw import drawn
        from fastuda_bench.ladder import refuse_switches
        from fastuda_bench.ladder_chart import ladder_chart
        from fastuda_bench.made_data import bench_batches
        from fastuda_bench.probe import read_probe
        from fastuda_bench.results import Row, doubt_of, write_rows
        from fastuda_bench.step import rungs_named, step_rows
        from fastuda_bench.step_table import table_of, verdict_of

        refuse_switches(set_ or [])
        if not prepared and (source is not None or target is not None):
            raise UsageError("--source and --target are read with --prepared alone; without it batches are noise")
        rungs = rungs_named(rung or [], bench.device)
        rates, work = (None, None) if limits is None else read_probe(limits, bench.name, bench.settings)

        def keep(rows: list[Row]) -> None:
            if json_file is not None:
                write_rows(json_file, bench.recorded([row | {"data": data} for row in rows]))

        data = "prepared" if prepared else "noise"
        batches = bench_batches(bench.recipe, bench.device, bench.folder, bench.task, prepared=prepared)
        rows = step_rows(
            bench.recipe,
            bench.name,
            batches,
            bench.device,
            repeats=repeats,
            iterations=iterations or (100 if bench.device.type == "cuda" else 3),
            rungs=rungs,
            profile=profile,
            limits=rates,
            work=work,
            report=say,
            keep=keep,
        )
        console.print(table_of(rows))
        say(verdict_of(rows))
        if chart is not None:
            drawn(ladder_chart, chart, rows, say)
        if any(doubt_of(row) for row in rows):
            raise typer.Exit(1)
