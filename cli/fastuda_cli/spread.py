"""A report of several seeds on the console, and the exit code when some of its runs failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastuda_cli.console import console, say


def show_spread(content: dict[str, Any], folder: Path, name: str) -> None:
    """Print a report's tables and where it lies; FastudaError when a run of it failed."""
    from fastuda.errors import FastudaError
    from fastuda.study.conduct import failures
    from fastuda.study.printed import class_tables, score_table

    for table in class_tables(content, console.width):
        console.print(table)
    console.print(score_table(content))
    say(f"results: {folder / f'{name}.json'}\npicture: {folder / f'{name}.png'}")
    lines = failures(content)
    if lines:
        raise FastudaError("these runs failed, and the same command tries them again:\n  " + "\n  ".join(lines))
