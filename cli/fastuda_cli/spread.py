"""A report of several seeds on the console, and the exit code when some of its runs failed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastuda.report.display import Display


def show_spread(display: Display, content: dict[str, Any], folder: Path, name: str, again: str) -> None:
    """Show a report's tables and where it lies; FastudaError when a run of it failed, which `again` retries."""
    from fastuda.errors import FastudaError
    from fastuda.study.conduct import failures
    from fastuda.study.printed import class_tables, pseudo_label_tables, score_table, verdict_table

    width = display.console.width
    for table in (*class_tables(content, width), *pseudo_label_tables(content, width)):
        display.console.print(table)
    display.console.print(score_table(content))
    verdicts = verdict_table(content)
    if verdicts is not None:
        display.console.print(verdicts)
    files = {"results": f"{name}.json", "picture": f"{name}.png", "curves": f"{name}-curves.png"}
    for kind, file in ((kind, folder / file) for kind, file in files.items()):
        if file.exists():
            display.note(f"{kind}: {file}")
    lines = failures(content)
    if lines:
        raise FastudaError(f"these runs failed; {again} tries them again:\n  " + "\n  ".join(lines))
