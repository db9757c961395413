"""`fastuda bench prepare`: packing, a format a row."""

from __future__ import annotations

from typing import Annotated

import typer

from fastuda_cli.bench_subject import Out, Repeats
from fastuda_cli.console import reported


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
