"""`fastuda bench ranks`: several ranks against one process, and what holds them back."""

from __future__ import annotations

from typing import Annotated

import typer

from fastuda_cli import options
from fastuda_cli.bench_subject import BenchRecipe, Iterations, Out, Repeats, subject
from fastuda_cli.console import console, reported


def ranks(
    recipe: BenchRecipe = None,
    num_ranks: Annotated[int, typer.Option("--ranks", help="How many.", min=2)] = 2,
    repeats: Repeats = 5,
    iterations: Iterations = None,
    json_file: Out = None,
    device: options.Device = None,
    set_: options.Settings = None,
) -> None:
    """One recipe's step in one process and on several ranks of this machine: what is gained, what exchanging costs."""
    with reported(), subject(recipe, None, None, device, set_) as bench:
        from fastuda_bench.ranks import rank_rows, table_of
        from fastuda_bench.results import write_rows

        rows = rank_rows(
            recipe or bench.name,
            ["model.weights=random", *options.settings(set_, None, None)],
            bench.device,
            bench.folder,
            num_ranks=num_ranks,
            repeats=repeats,
            iterations=iterations or (100 if bench.device.type == "cuda" else 5),
        )
        console.print(table_of(rows))
        if json_file is not None:
            write_rows(json_file, bench.recorded(rows))
