"""`fastuda bench`: measurements, each a command; results as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastuda_cli import options
from fastuda_cli.console import reported, say

app = typer.Typer(help="Measure fastuda on this machine.", no_args_is_help=True)

Out = Annotated[Path | None, typer.Option("--json", help="Also write the rows to this file.")]
Repeats = Annotated[int, typer.Option(help="Repeats; median and spread are reported.", min=1)]


@app.command()
def prepare(
    pairs: Annotated[int, typer.Option(help="GTA5-sized pairs to pack.", min=1)] = 60,
    repeats: Repeats = 3,
    workers: Annotated[int | None, typer.Option(help="Threads; all cores by default.", min=1)] = None,
    json_file: Out = None,
) -> None:
    """Pairs a second and peak memory of packing a data set, a packed format a row."""
    with reported():
        from fastuda_bench.prepare import main
        from fastuda_bench.results import write_rows

        rows = main(pairs, repeats, workers)
        if json_file is not None:
            write_rows(json_file, rows)


@app.command()
def formats(
    images: Annotated[int, typer.Option(help="Images to measure on.", min=1)] = 4,
    repeats: Repeats = 5,
    json_file: Out = None,
) -> None:
    """Bytes, decode cost and error of the formats that a pack could have."""
    with reported():
        from fastuda_bench.formats import main
        from fastuda_bench.results import write_rows

        rows = main(images, repeats)
        if json_file is not None:
            write_rows(json_file, rows)


@app.command()
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
    """Milliseconds and memory of the four operations against plain PyTorch, and the share of the device's limit."""
    with reported():
        from fastuda.runtime import choose_device
        from fastuda_bench.kernels import main
        from fastuda_bench.results import write_rows

        rows = main(choose_device(device), repeats=repeats, compiled=compiled, chart=chart)
        if json_file is not None:
            write_rows(json_file, rows)


@app.command()
def figures(
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit 1 if a page is not current.")] = False,
    root: Annotated[Path, typer.Option(help="The repository.")] = Path(),
) -> None:
    """Write the tables of README.md and its kin from bench/results/."""
    with reported():
        from fastuda_bench.figures import stale_pages, update_pages

        pages = stale_pages(root) if check else update_pages(root)
        for page in pages:
            say(f"{page}: {'not current' if check else 'rewritten'}")
        if check and pages:
            raise typer.Exit(1)
