"""`fastuda data show`: one batch as the network sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastuda_cli import options
from fastuda_cli.console import console, reported, say


def show(
    recipe: options.Recipe,
    source: options.Source = None,
    target: options.Target = None,
    model: Annotated[
        Path | None, typer.Option(help="Run or weights that make the pseudo-labels.", parser=options.path)
    ] = None,
    out: Annotated[Path, typer.Option(help="The PNG to write.", parser=options.path)] = Path("batch.png"),
    iteration: Annotated[int, typer.Option(help="Which iteration's batch.", min=0)] = 0,
    device: options.Device = None,
    set_: options.Settings = None,
) -> None:
    """A contact sheet: weak, strong, class-mixed and HTCM-mixed crops, labels laid over."""
    with reported():
        from fastuda.data.datasets import prepare_all, with_demo_data
        from fastuda.evaluation.load import load
        from fastuda.recipe.file import load_recipe
        from fastuda.report.display import Display
        from fastuda.report.pictures import save_picture
        from fastuda.training.contact_sheet import contact_sheet

        display = Display(console)
        resolved = with_demo_data(load_recipe(recipe, options.settings(set_, source, target)), display.task)
        trained = load(model, stage="source_only", device=device) if model else None
        save_picture(out, contact_sheet(resolved, prepare_all(resolved, display.task), trained, iteration))
        if trained is None:
            say("no --model: pseudo-labels are unknown, and HTCM pastes nothing")
        say(str(out))
