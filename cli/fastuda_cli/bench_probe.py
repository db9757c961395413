"""`fastuda bench probe`: the device and what it can do."""

from __future__ import annotations

from typing import Annotated

import typer

from fastuda_cli import options
from fastuda_cli.bench_subject import Out, subject
from fastuda_cli.console import console, reported


def probe(
    recipe: Annotated[
        str | None, typer.Argument(help="Also count an iteration of this recipe, and its shortest time here.")
    ] = None,
    json_file: Out = None,
    device: options.Device = None,
    set_: options.Settings = None,
) -> None:
    """The device: power, clocks, memory, and its rates of copies, products and convolutions on random data."""
    with reported(), subject(recipe, None, None, device, set_, trains=False) as bench:
        from fastuda_bench.probe import probe_row, table_of
        from fastuda_bench.results import Row, write_rows

        def keep(row: Row) -> None:
            if json_file is not None:
                write_rows(json_file, bench.recorded([row]))

        counted = None if recipe is None else bench.recipe
        console.print(table_of(probe_row(bench.device, counted, bench.name, keep)))
