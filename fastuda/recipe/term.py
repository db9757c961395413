"""The recipe's table of a loss term that is no part of the paper's method: `[terms.NAME]`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from fastuda.recipe.named import named
from fastuda.recipe.section import NonNegative, Section

PACKAGE = "fastuda.method.terms"
RESERVED = (
    *("source", "mix", "htcm", "pixel", "prototype", "source_mix", "edge_mix", "edge_htcm", "edge_htcm_auxiliary"),
    "total",
)
"""What logs call the method's own losses and their sum; no file of a further term can be called so."""


class TermTable(Section):
    """A further loss term, on where its table stands; the file `fastuda/method/terms/NAME.py` says what it is."""

    weight: NonNegative = 1.0
    """In the sum of all losses, relative to L_s."""

    def check(self, classes: Sequence[str]) -> None:
        """Raise ValueError, naming the field, for what does not fit a recipe of these classes."""


def term_table(name: str) -> type[TermTable]:
    """The table of a term by its name; ValueError where there is none."""
    table: type[TermTable] = named(PACKAGE, name, "TERM")
    if name in RESERVED:
        raise ValueError(f"{name!r} is what logs call a loss of the method's own: give the term's file another name")
    return table


def with_names(tables: Any) -> Any:
    """Each table of a mapping with its name, by which `read_term` knows what it is."""
    return {name: (name, table) for name, table in tables.items()} if isinstance(tables, Mapping) else tables


def read_term(named_table: Any) -> TermTable:
    """A table as TOML has it, with its name, as its own term's; ValueError where there is no such term."""
    name, table = named_table
    return table if isinstance(table, TermTable) else term_table(name).model_validate(table)


Terms = Annotated[
    dict[str, Annotated[SerializeAsAny[TermTable], BeforeValidator(read_term)]], BeforeValidator(with_names)
]
"""Tables of further terms by name."""
