"""Every field of a recipe by its full name."""

from __future__ import annotations

from typing import Any

from fastuda.recipe import Recipe


def fields(recipe: Recipe) -> dict[str, Any]:
    """Every field by its full name, as TOML would say it."""

    def walk(table: dict[str, Any], prefix: str) -> None:
        for key, value in table.items():
            if isinstance(value, dict) and key not in ("ids", "subsets"):
                walk(value, f"{prefix}{key}.")
            else:
                found[prefix + key] = value

    found: dict[str, Any] = {}
    walk(recipe.model_dump(mode="json"), "")
    return found
