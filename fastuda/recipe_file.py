"""Recipes on disk: presets and users' TOML files, `base` inheritance, variants, `--set`, errors that name the field.

A preset under `recipes/` (or a user's own TOML file) holds only what differs from the defaults in
the package `recipe` or from the recipe named by its `base` key. A variant under `recipes/variants/`
is a few lines over any recipe: `gta2cs+cmix` is `gta2cs` with those of `cmix`.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ValidationError

from fastuda.errors import UsageError
from fastuda.paths import user_path
from fastuda.recipe import Recipe
from fastuda.text_file import read_text


def preset_names() -> list[str]:
    """Names of the recipes that come with fastuda, sorted."""
    return _toml_names(_RECIPES)


def variant_names() -> list[str]:
    """Names of the variants that any recipe can have, sorted."""
    return _toml_names(_VARIANTS)


def recipe_name(name_or_path: str) -> str:
    """What a recipe is called in results and folders: `gta2cs`, `mine` for `some/mine.toml`, `mine+cmix`."""
    stem, variants = _split(name_or_path)
    return "+".join((Path(stem).name.removesuffix(".toml"), *variants))


Layer = tuple[Sequence[str], Sequence[str]]
"""Variants, and settings over those."""


def load_recipe(name_or_path: str, settings: Sequence[str] = (), *, layers: Sequence[Layer] = ()) -> Recipe:
    """Read a preset by name or a TOML file by path, add `+variant`s, apply `a.b=value` settings, validate.

    `layers` are laid over the settings, one after another: what a row of a table changes wins over what is set
    for all rows. Raises UsageError that names the file, the field, and the nearest known field or name.
    """
    table = _read_table(name_or_path, ())
    for variants, changes in (((), settings), *layers):
        for name in variants:
            table = _varied(table, name)
        for change in changes:
            _apply(table, change)
    return recipe_of(table, name_or_path)


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as TOML; `load_recipe` of it gives the same recipe."""
    return tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True, by_alias=True))


def preset_text(name: str) -> str:
    """The TOML text of a preset; raises UsageError naming the nearest preset."""
    if name not in preset_names():
        raise UsageError(f"no recipe is called {name!r}{nearest(name, preset_names())}; `fastuda recipes` lists them")
    return (_RECIPES / f"{name}.toml").read_text("utf-8")


def variant_text(name: str) -> str:
    """The TOML text of a variant; raises UsageError naming the nearest variant."""
    if name not in variant_names():
        near = nearest(name, variant_names())
        raise UsageError(f"no variant is called {name!r}{near}; there are {', '.join(variant_names())}")
    return (_VARIANTS / f"{name}.toml").read_text("utf-8")


_RECIPES = resources.files("fastuda") / "recipes"
_VARIANTS = _RECIPES / "variants"


def _toml_names(folder: Traversable) -> list[str]:
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def _split(name_or_path: str) -> tuple[str, list[str]]:
    """A recipe's name or path, and the variants after it; a path may have a `+` of its own."""
    match = re.fullmatch(r"(?P<stem>.*\.toml|[^+]*)(?P<variants>(\+[^+/]*)*)", name_or_path)
    if match is None:
        return name_or_path, []
    return match["stem"], match["variants"].split("+")[1:]


def _read_table(name_or_path: str, seen: tuple[str, ...]) -> dict[str, Any]:
    """The merged tables of a recipe, its bases and its variants."""
    stem, variants = _split(name_or_path)
    table = _read_file(stem, seen)
    for name in variants:
        table = _varied(table, name)
    return table


def _varied(table: dict[str, Any], variant: str) -> dict[str, Any]:
    change = tomllib.loads(variant_text(variant))
    described = [text for text in (table.get("description"), change["description"]) if text]
    return {**_merged(table, change), "description": "; ".join(described)}


def _read_file(name_or_path: str, seen: tuple[str, ...]) -> dict[str, Any]:
    path = user_path(name_or_path)
    identity = str(path.resolve()) if path.suffix == ".toml" else name_or_path
    if identity in seen:
        raise UsageError(f"recipe {name_or_path} is its own base: {' -> '.join((*seen, identity))}")
    if path.suffix == ".toml":
        try:
            text = read_text(path)
        except OSError as error:
            raise UsageError(f"{path}: cannot read this recipe ({error.strerror})") from error
        except UnicodeDecodeError as error:
            raise UsageError(f"{path}: cannot read this recipe (save it as UTF-8 text: {error})") from error
    else:
        text = preset_text(name_or_path)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{name_or_path}: not valid TOML: {error}") from error
    base = table.pop("base", None)
    if base is None:
        return table
    if not isinstance(base, str):
        raise UsageError(f"{name_or_path}: base must be a recipe's name or path, not {base!r}")
    if _split(base)[0].endswith(".toml") and path.suffix == ".toml":
        base = str(path.parent / user_path(base))
    return _merged(_read_table(base, (*seen, identity)), table)


# Tables that mean one thing as a whole: a derived recipe replaces them, it does not add to them.
_WHOLE = ("ids", "subsets")


def _merged(base: dict[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in change.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), dict) and key not in _WHOLE:
            if "layout" in value and value["layout"] != result[key].get("layout"):
                result[key] = dict(value)  # another layout shares no field with the base's
            elif key == "classes" and ("preset" in value or "names" in value):
                result[key] = dict(value)  # another class list has its own colours
            else:
                result[key] = _merged(result[key], value)
        else:
            result[key] = value
    return result


def _apply(table: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise UsageError(f"--set {setting}: write it as section.field=value, e.g. --set method.tau=0.9")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word or a path, which TOML would want quoted
    *sections, field = key.strip().split(".")
    for section in sections:
        inner = table.setdefault(section, {})
        if not isinstance(inner, dict):
            raise UsageError(f"--set {setting}: {section} is a value, not a section")
        table = inner
    table[field] = value
    if sections == ["classes"] and field == "preset":
        table.pop("names", None)
        table.pop("palette", None)


def recipe_of(table: Mapping[str, Any], origin: str) -> Recipe:
    """Validate a table as read from TOML; UsageError names `origin` and each field that is wrong."""
    try:
        return Recipe.model_validate(table)
    except ValidationError as error:
        lines = [_explain(problem) for problem in error.errors(include_url=False)]
        raise UsageError(f"recipe {origin}:\n  " + "\n  ".join(lines)) from error


def _explain(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        section: Any = Recipe
        for part in problem["loc"][:-1]:
            section = section_type(section, str(part))
        known = [field.alias or name for name, field in section.model_fields.items()]
        field = str(problem["loc"][-1])
        near = nearest(field, known) or _elsewhere(field)
        return f"{where}: no such field{near or '; it has ' + ', '.join(known)}"
    message = problem["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(problem["input"], Mapping | BaseModel) else f" (got {problem['input']!r})"
    return f"{where + ': ' if where else ''}{message}{shown}"


def section_type(section: type[BaseModel], name: str) -> type[BaseModel]:
    """The table that a field of `section` holds; raises TypeError for a field that is none."""
    annotation = section.model_fields[name].annotation
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    raise TypeError(f"{name} is no section")


def nearest(name: str, known: Sequence[str]) -> str:
    """`; did you mean X?` for the known name that is most like `name`; nothing when none is."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def _elsewhere(field: str) -> str:
    places = [where for where, name in _fields(Recipe) if name == field]
    return f"; did you mean {places[0]}?" if places else ""


def _fields(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, field in section.model_fields.items():
        where = prefix + (field.alias or name)
        yield where, field.alias or name
        try:
            inner = section_type(section, name)
        except TypeError:
            continue
        yield from _fields(inner, where + ".")
