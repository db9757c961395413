"""What recipes need, as a table of the project's pages."""

from __future__ import annotations

from typing import Any

from fastuda_bench.markdown import table
from fastuda_bench.needs import COLUMNS, cells


def recipe_needs(rows: list[dict[str, Any]]) -> str:
    """A recipe a line."""
    lines = [(f"`{row['recipe']}`", *cells(row)) for row in rows]
    first = rows[0]
    versions = f"torch {first['versions']['torch']}, transformers {first['versions']['transformers']}"
    note = f"One iteration in bf16, estimated without a GPU; commit `{first['commit']}`, {versions}, {first['date']}.\n"
    return table(("recipe", *COLUMNS), lines) + "\n" + note
