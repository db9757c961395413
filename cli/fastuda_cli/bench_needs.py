"""`fastuda bench needs`: parameters, arithmetic and memory of an iteration on a GPU that need not be there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastuda_cli import options
from fastuda_cli.bench_subject import Out
from fastuda_cli.console import console, reported


def needs(
    recipes: Annotated[list[str], typer.Argument(help="Recipes' names or TOML files.")],
    json_file: Out = None,
    set_: options.Settings = None,
) -> None:
    """Parameters, FLOPs and memory of one iteration of each recipe, and what of it fits 10, 16 and 24 GB."""
    with reported():
        from fastuda.recipe.file import load_recipe
        from fastuda_bench.needs import needs as needed
        from fastuda_bench.needs import table_of
        from fastuda_bench.results import write_rows

        loaded = {Path(name).stem: load_recipe(name, ["model.weights=random", *(set_ or [])]) for name in recipes}
        rows = [needed(recipe, name) | {"settings": sorted(set_ or [])} for name, recipe in loaded.items()]
        console.print(table_of(rows))
        if json_file is not None:
            write_rows(json_file, rows)
