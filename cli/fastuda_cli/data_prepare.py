"""`fastuda data prepare`: pack a recipe's data ahead of its first training."""

from __future__ import annotations

from fastuda_cli import options
from fastuda_cli.console import console, reported


def prepare(
    recipe: options.Recipe,
    source: options.Source = None,
    target: options.Target = None,
    set_: options.Settings = None,
) -> None:
    """Decode, resize, convert labels, pack; resumable. `fastuda train` does the same by itself."""
    with reported():
        from fastuda.data.datasets import prepare_all, with_demo_data
        from fastuda.recipe.file import load_recipe
        from fastuda.report.display import Display
        from fastuda.report.tables import packed_table

        display = Display(console)
        resolved = with_demo_data(load_recipe(recipe, options.settings(set_, source, target)), display.task)
        console.print(packed_table(prepare_all(resolved, display.task)))
