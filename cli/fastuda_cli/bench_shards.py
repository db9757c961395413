"""`fastuda bench shards`: packs read file by file, or in shards from beginning to end."""

from __future__ import annotations

from typing import Annotated

import typer

from fastuda_cli import options
from fastuda_cli.bench_subject import BenchRecipe, Out, Repeats, subject
from fastuda_cli.console import console, reported


def shards(
    recipe: BenchRecipe = None,
    samples: Annotated[int, typer.Option(help="Pairs to make and pack.", min=2)] = 240,
    repeats: Repeats = 3,
    json_file: Out = None,
    set_: options.Settings = None,
) -> None:
    """An epoch read in training's order, from memory, from the disk, and with a network's round trips simulated."""
    with reported(), subject(recipe or "gta2cs", None, None, "cpu", set_, trains=False) as bench:
        from fastuda_bench.results import write_rows
        from fastuda_bench.shards import shard_rows, table_of
        from fastuda_cli.console import say

        rows = shard_rows(bench.recipe, bench.folder, num_samples=samples, repeats=repeats, report=say)
        console.print(table_of(rows))
        if json_file is not None:
            write_rows(json_file, bench.recorded(rows))
