"""Tables and numbers as the project's pages write them."""

from __future__ import annotations

from collections.abc import Sequence


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    rule = ("---", *["---:"] * (len(head) - 1))
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, rule, *rows))


def number(value: float | None) -> str:
    """One decimal; a dash where there is no value."""
    return "–" if value is None else f"{value:.1f}"


def cell(text: str) -> str:
    """Any text on one line of a table."""
    return " ".join(text.replace("|", "\\|").split())
