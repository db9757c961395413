"""`fastuda bench kernels`: the five operations against plain PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastuda_cli import options
from fastuda_cli.bench_subject import Out, Rates, Repeats
from fastuda_cli.console import console, reported, say


def kernels(
    repeats: Repeats = 5,
    compiled: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="Also torch.compile the formulas; on a GPU by default."),
    ] = None,
    small: Annotated[bool, typer.Option("--small", help="Toy sizes, to try the command.")] = False,
    limits: Rates = None,
    json_file: Out = None,
    chart: Annotated[Path | None, typer.Option(help="Also draw a bar chart to this PNG.", parser=options.path)] = None,
    device: options.Device = None,
) -> None:
    """Milliseconds and memory of the five operations against plain PyTorch, and the share of the device's limit."""
    with reported():
        from fastuda.runtime.device import choose_device
        from fastuda_bench.chart import bar_chart
        from fastuda_bench.draw import drawn
        from fastuda_bench.kernels import kernel_rows, table_of
        from fastuda_bench.probe import read_probe
        from fastuda_bench.results import Row, doubt_of, write_rows

        def keep(rows: list[Row]) -> None:
            if json_file is not None:
                write_rows(json_file, rows)

        rates = None if limits is None else read_probe(limits, None, [])[0]
        chosen = choose_device(device)
        rows = kernel_rows(chosen, repeats=repeats, compiled=compiled, small=small, limits=rates, keep=keep)
        console.print(table_of(rows))
        if chart is not None:
            drawn(bar_chart, chart, rows, say)
        if any(doubt_of(row) for row in rows):
            raise typer.Exit(1)
