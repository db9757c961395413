"""`fastuda bench figures`: the tables of the pages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastuda_cli import options
from fastuda_cli.console import reported, say


def figures(
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit 1 if a page is not current.")] = False,
    root: Annotated[Path, typer.Option(help="The repository.", parser=options.path)] = Path(),
) -> None:
    """Write the tables of README.md and its kin from bench/results/."""
    with reported():
        from fastuda_bench.figures import stale_pages, update_pages

        pages = stale_pages(root) if check else update_pages(root)
        for page in pages:
            say(f"{page}: {'not current' if check else 'rewritten'}")
        if check and pages:
            raise typer.Exit(1)
