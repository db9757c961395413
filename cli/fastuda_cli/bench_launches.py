"""`fastuda bench launches`: kernel launches and bytes of an iteration on a GPU that need not be there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastuda_cli import options
from fastuda_cli.bench_subject import Out
from fastuda_cli.console import console, reported


def launches(
    recipe: Annotated[str, typer.Argument(help="A recipe's name or a TOML file.")] = "gta2cs",
    json_file: Out = None,
    set_: options.Settings = None,
) -> None:
    """Kernel launches and bytes of one iteration on a GPU, rung by rung, estimated here from the compiler's graphs."""
    with reported():
        from fastuda.recipe.file import load_recipe
        from fastuda_bench.ladder import refuse_switches
        from fastuda_bench.launches import launch_rows, table_of
        from fastuda_bench.results import write_rows

        refuse_switches(set_ or [])
        resolved = load_recipe(recipe, ["model.weights=random", *(set_ or [])])
        rows = [row | {"settings": sorted(set_ or [])} for row in launch_rows(resolved, Path(recipe).stem)]
        console.print(table_of(rows))
        if json_file is not None:
            write_rows(json_file, rows)
