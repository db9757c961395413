"""`fastuda bench compare`: two results files against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastuda_cli import options
from fastuda_cli.console import reported


def compare(
    before: Annotated[Path, typer.Argument(help="A results file.", parser=options.path)],
    after: Annotated[Path, typer.Argument(help="Another one, of the same measurement.", parser=options.path)],
) -> None:
    """What changed between two results files, and whether it is more than the spread."""
    with reported():
        from fastuda_bench.compare import compare as main

        main(before, after)
