"""A recipe's table as read from TOML, validated, with errors that name the field and what it might have been."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from fastuda.errors import UsageError, nearest
from fastuda.printable import brief, on_one_line, printable, shortened
from fastuda.recipe import Recipe
from fastuda.recipe.choice import Choice
from fastuda.recipe.term import TermTable, term_table

_LONGEST_LINE, _LONGEST_MESSAGE = 400, 1600


def recipe_of(table: Mapping[str, Any], origin: str) -> Recipe:
    """Validate a table as read from TOML; UsageError names `origin` and each field that is wrong."""
    try:
        return Recipe.model_validate(table)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
        lines: list[str] = []
        for problem in problems:
            line = shortened(printable(_explain(problem, table)), _LONGEST_LINE)
            if sum(map(len, lines)) + len(line) > _LONGEST_MESSAGE:
                lines.append(f"… and {len(problems) - len(lines)} more")
                break
            lines.append(line)
        raise UsageError(f"recipe {on_one_line(origin)}:\n  " + "\n  ".join(lines)) from error


def _explain(problem: Any, table: Mapping[str, Any]) -> str:
    where = ".".join(on_one_line(str(part), 80) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        section: Any = Recipe
        given: Any = table
        for part in problem["loc"][:-1]:
            given = given.get(part, {}) if isinstance(given, Mapping) else {}
            section = term_table(str(part)) if section is TermTable else section_type(section, str(part), given)
        known = [field.alias or name for name, field in section.model_fields.items()]
        field = str(problem["loc"][-1])
        near = nearest(field, known) or _elsewhere(field)
        return f"{where}: no such field{near or '; it has ' + ', '.join(known)}"
    message = problem["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(problem["input"], Mapping | BaseModel | tuple) else f" (got {brief(problem['input'])})"
    return f"{where + ': ' if where else ''}{message}{shown}"


def section_type(section: type[BaseModel], name: str, given: Any = None) -> type[BaseModel]:
    """The table that a field of `section` holds, of those told by their kind the one that is `given`.

    Raises TypeError for a field that is none.
    """
    if section is Recipe and name == "terms":
        return TermTable
    annotation = section.model_fields[name].annotation
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, Choice):
            return candidate.chosen(given if isinstance(given, Mapping) else {})
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    raise TypeError(f"{name} is no section")


def _elsewhere(field: str) -> str:
    places = [where for where, name in _fields(Recipe) if name == field]
    return f"; did you mean {places[0]}?" if places else ""


def _fields(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, field in section.model_fields.items():
        where = prefix + (field.alias or name)
        yield where, field.alias or name
        if name == "terms":
            continue  # whose tables have their own names
        try:
            inner = section_type(section, name)
        except TypeError:
            continue
        yield from _fields(inner, where + ".")
