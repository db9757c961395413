"""`fastuda bench evaluate`: scoring a model."""

from __future__ import annotations

from typing import Annotated

import typer

from fastuda_cli import options
from fastuda_cli.bench_subject import BenchRecipe, Out, Repeats, subject
from fastuda_cli.console import console, reported


def evaluate(
    recipe: BenchRecipe = None,
    images: Annotated[
        int | None, typer.Option(help="Images to score; by default 500 on a GPU, 8 on a CPU.", min=1)
    ] = None,
    repeats: Repeats = 1,
    json_file: Out = None,
    device: options.Device = None,
    set_: options.Settings = None,
) -> None:
    """Seconds to score a model on made images of 2048×1024: loading, network, both protocols."""
    with reported(), subject(recipe, None, None, device, set_, trains=False) as bench:
        from fastuda_bench.evaluation import evaluation_row, table_of
        from fastuda_bench.made_data import made_evaluation
        from fastuda_bench.results import write_rows

        packed = made_evaluation(bench.recipe, bench.folder, images or (500 if bench.device.type == "cuda" else 8))
        row = evaluation_row(bench.recipe, bench.name, packed, bench.device, repeats=repeats)
        console.print(table_of([row]))
        if json_file is not None:
            write_rows(json_file, bench.recorded([row]))
