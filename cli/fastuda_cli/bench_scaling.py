"""`fastuda bench scaling`: what a recipe would be worth on several GPUs, as a model, and a check of its arithmetic."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from fastuda_cli import options
from fastuda_cli.bench_subject import Out, Repeats
from fastuda_cli.console import console, reported, say


def scaling(
    recipe: Annotated[str, typer.Argument(help="A recipe's name or a TOML file.")] = "gta2cs",
    json_file: Out = None,
    steps: Annotated[
        Path | None,
        typer.Option(
            "--step",
            help="Results of `bench step` on a GPU: its milliseconds in place of that card's roofline.",
            parser=options.path,
        ),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also time all-reduces of 2 and 3 processes here against the model.")
    ] = False,
    repeats: Repeats = 15,
    set_: options.Settings = None,
) -> None:
    """Bytes between GPUs, efficiency on 2, 4, 8 and 64 of them, and what feeds them: modelled, nothing is run."""
    with reported():
        from fastuda.recipe.file import load_recipe
        from fastuda_bench.all_reduce import all_reduce_rows
        from fastuda_bench.results import write_rows
        from fastuda_bench.scaling_rows import model_rows, step_rows
        from fastuda_bench.scaling_table import tables_of

        loaded, name = load_recipe(recipe, ["model.weights=random", *(set_ or [])]), Path(recipe).stem
        rows = model_rows(loaded, name, [] if steps is None else step_rows(steps, name))
        if measure:
            with TemporaryDirectory(prefix="fastuda-bench-") as folder:
                for ranks in (2, 3):
                    rows += all_reduce_rows(ranks, Path(folder) / str(ranks), repeats=repeats, report=say)
        for table in tables_of(rows):
            console.print(table)
        if json_file is not None:
            write_rows(json_file, [{"question": "scaling", **row, "settings": sorted(set_ or [])} for row in rows])
