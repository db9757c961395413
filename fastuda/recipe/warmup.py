"""What the source-only stage of a recipe depends on, as its tables declare it: rows that agree share a warm-up."""

from __future__ import annotations

from typing import Any

from fastuda.recipe import Recipe
from fastuda.recipe.section import Section


def warmup_fields(recipe: Recipe) -> dict[str, Any]:
    """Those fields by table, JSON's types; the seed, which every row has its own of, is not among them."""
    tables = {name: getattr(recipe, name) for name in type(recipe).model_fields}
    tables |= {f"terms.{name}": table for name, table in recipe.terms.items()}
    return {
        name: table.model_dump(mode="json", include=None if table.of_warmup is None else set(table.of_warmup))
        for name, table in tables.items()
        if isinstance(table, Section) and table.of_warmup != ()
    }
