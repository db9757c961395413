"""A recipe as a person reads it: TOML with the meaning of every table and field above it."""

from __future__ import annotations

import re
import textwrap

from pydantic import BaseModel

from fastuda.recipe import Recipe
from fastuda.recipe.file import dump_recipe

_WIDTH = 110


def explained(recipe: Recipe) -> str:
    """Every field of `recipe`, resolved, under its docstring as a comment; still TOML that reads back as the recipe."""
    section: BaseModel | None = recipe
    lines: list[str] = []
    for line in dump_recipe(recipe).splitlines():
        if match := re.fullmatch(r"\[(?P<path>[\w.]+)\]", line):
            holder, section = _below(recipe, match["path"].split("."))
            name = match["path"].rpartition(".")[2]
            lines += [*_comment(holder, name), line]
            continue
        name = line.partition(" = ")[0]
        lines += [*_comment(section, name), line]
    return "\n".join(lines) + "\n"


def _below(recipe: Recipe, path: list[str]) -> tuple[BaseModel | None, BaseModel | None]:
    """The table that holds the last part of `path`, and that part as a table; None where it is a plain mapping."""
    holder: BaseModel | dict[str, object] | None = None
    section: BaseModel | dict[str, object] | None = recipe
    for part in path:
        holder = section
        inner = holder.get(part) if isinstance(holder, dict) else getattr(holder, part, None)
        section = inner if isinstance(inner, BaseModel | dict) else None
    return (holder if isinstance(holder, BaseModel) else None), (section if isinstance(section, BaseModel) else None)


def _comment(section: BaseModel | None, name: str) -> list[str]:
    if section is None:
        return []
    by_name = {field.alias or own: field for own, field in type(section).model_fields.items()}
    meaning = (by_name[name].description if name in by_name else None) or ""
    return [f"# {line}" for line in textwrap.wrap(" ".join(meaning.split()), _WIDTH, break_on_hyphens=False)]
