"""`fastuda bench kernels`: the five operations against plain PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastuda_cli import options
from fastuda_cli.bench_subject import Out, Repeats
from fastuda_cli.console import reported


def kernels(
    repeats: Repeats = 5,
    compiled: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="Also torch.compile the formulas; on a GPU by default."),
    ] = None,
    json_file: Out = None,
    chart: Annotated[Path | None, typer.Option(help="Also draw a bar chart to this PNG.")] = None,
    device: options.Device = None,
) -> None:
    """Milliseconds and memory of the five operations against plain PyTorch, and the share of the device's limit."""
    with reported():
        from fastuda.runtime import choose_device
        from fastuda_bench.kernels import main
        from fastuda_bench.results import write_rows

        rows = main(choose_device(device), repeats=repeats, compiled=compiled, chart=chart)
        if json_file is not None:
            write_rows(json_file, rows)
