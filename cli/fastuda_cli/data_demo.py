"""`fastuda data demo`: two drawn domains of street scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastuda_cli import options
from fastuda_cli.console import console, reported, say


def demo(
    folder: Annotated[Path, typer.Argument(help="New folder to draw into.", metavar="DIR", parser=options.path)],
    num_source: Annotated[int, typer.Option(help="Source training images.", min=1)] = 300,
    num_source_val: Annotated[int, typer.Option(help="Held-out source images.", min=1)] = 40,
    num_target: Annotated[int, typer.Option(help="Unlabelled target training images.", min=1)] = 300,
    num_val: Annotated[int, typer.Option(help="Labelled target images for evaluation.", min=1)] = 50,
    width: Annotated[int, typer.Option(help="Pixels.", min=64)] = 512,
    height: Annotated[int, typer.Option(help="Pixels.", min=32)] = 256,
    seed: Annotated[int, typer.Option(help="The worlds' seed; equal seeds give equal bytes.", min=0)] = 0,
) -> None:
    """Draw two domains: DIR/source and DIR/source_val (GTA5 layout), DIR/target (Cityscapes layout)."""
    with reported():
        from fastuda.demo import draw_demo
        from fastuda.report.display import Display

        draw_demo(
            folder,
            num_source=num_source,
            num_source_val=num_source_val,
            num_target=num_target,
            num_val=num_val,
            size=(width, height),
            seed=seed,
            progress=Display(console).task("Drawing two domains"),
        )
        say(f"source: {folder / 'source'}\ntarget: {folder / 'target'}")
