"""The recipe's table of a loss term that is no part of the paper's method: `[terms.NAME]`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastuda.recipe.named import named
from fastuda.recipe.section import NonNegative, Section

PACKAGE = "fastuda.method.terms"


class TermTable(Section):
    """A further loss term, on where its table stands; the file `fastuda/method/terms/NAME.py` says what it is."""

    weight: NonNegative = 1.0
    """In the sum of all losses, relative to L_s."""


def term_table(name: str) -> type[TermTable]:
    """The table of a term by its name; ValueError where there is none."""
    table: type[TermTable] = named(PACKAGE, name, "TERM")
    return table


def read_terms(tables: Any) -> Any:
    """Tables by name as TOML has them, each as its own term's."""
    if not isinstance(tables, Mapping):
        return tables
    return {
        name: table if isinstance(table, TermTable) else term_table(name).model_validate(table)
        for name, table in tables.items()
    }
