"""Recipes on disk: presets and users' TOML files, `base` inheritance, variants, `--set`, errors that name the field.

A preset under `presets/` (or a user's own TOML file) holds only what differs from the defaults in
the package `recipe` or from the recipe named by its `base` key. A variant under `variants/`
is a few lines over any recipe: `gta2cs+cmix` is `gta2cs` with those of `cmix`.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import tomli_w

from fastuda.errors import UsageError, nearest
from fastuda.files.paths import user_path
from fastuda.files.toml_text import parse_toml, read_toml
from fastuda.printable import brief, on_one_line
from fastuda.recipe import Model, Optimizer, Recipe
from fastuda.recipe.mask import Mask
from fastuda.recipe.parts import with_parts
from fastuda.recipe.validation import recipe_of


def preset_names() -> list[str]:
    """Names of the recipes that come with fastuda, sorted."""
    return _toml_names(_RECIPES)


def variant_names() -> list[str]:
    """Names of the variants that any recipe can have, sorted."""
    return _toml_names(_VARIANTS)


AnyRecipe = str | os.PathLike[str] | Recipe
"""A preset's name, a TOML file's path, either with `+variant`s; or the recipe itself."""


def recipe_name(recipe: AnyRecipe) -> str:
    """What a recipe is called in results and folders: `gta2cs`, `mine` for `some/mine.toml`, `mine+cmix`.

    A Recipe has no name, and is called `own`.
    """
    if isinstance(recipe, Recipe):
        return "own"
    stem, variants = _split(os.fspath(recipe))
    return "+".join((Path(stem).name.removesuffix(".toml"), *variants))


Layer = tuple[Sequence[str], Sequence[str]]
"""Variants, and settings over those."""


def load_recipe(recipe: AnyRecipe, settings: Sequence[str] = (), *, layers: Sequence[Layer] = ()) -> Recipe:
    """Read a preset by name or a TOML file by path, add `+variant`s, apply `a.b=value` settings, validate.

    A Recipe is taken as if it were read. `layers` are laid over the settings, one after another: what a row of a table
    changes wins over what is set for all rows. Raises UsageError that names the file, the field, and the nearest known
    field or name.
    """
    if isinstance(recipe, Recipe):
        origin, table = recipe_name(recipe), _dumped(recipe)
    else:
        origin = os.fspath(recipe)
        table = _read_table(origin, ())
    for variants, changes in (((), settings), *layers):
        for name in variants:
            table = _varied(table, name)
        for change in sorted(changes, key=_fills_a_table):
            _apply(table, change)
    return recipe_of(table, origin)


def with_folders(
    settings: Sequence[str], source: str | os.PathLike[str] | None, target: str | os.PathLike[str] | None
) -> list[str]:
    """Settings, and the data sets' folders as the settings that they stand for; those win."""
    roots = {"source": source, "target": target}
    paths = {name: user_path(root).absolute() for name, root in roots.items() if root is not None}
    return [*settings, *(f"{name}.root={_quoted(str(path))}" for name, path in paths.items())]


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as TOML; `load_recipe` of it gives the same recipe."""
    return tomli_w.dumps(_dumped(recipe))


def require_text(recipe: Recipe) -> None:
    """UsageError, with the field's name, for a recipe that TOML cannot hold: a path or a name that is no UTF-8."""
    for where, text in _texts(recipe.model_dump(exclude_none=True, by_alias=True), ""):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"{on_one_line(where)}: {on_one_line(text, 300)} is no UTF-8, so a run's recipe.toml cannot hold it; "
                "rename it, or give a link to it that has another name"
            ) from None


def preset_text(name: str) -> str:
    """The TOML text of a preset; raises UsageError naming the nearest preset."""
    if name not in preset_names():
        raise UsageError(
            f"no recipe is called {brief(name, 300)}{nearest(name, preset_names())}; `fastuda recipes` lists them"
        )
    return (_RECIPES / f"{name}.toml").read_text("utf-8")


def variant_text(name: str) -> str:
    """The TOML text of a variant; raises UsageError naming the nearest variant."""
    if name not in variant_names():
        near = nearest(name, variant_names())
        raise UsageError(f"no variant is called {brief(name, 300)}{near}; there are {', '.join(variant_names())}")
    return (_VARIANTS / f"{name}.toml").read_text("utf-8")


def _dumped(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json", exclude_none=True, by_alias=True)


def _quoted(text: str) -> str:
    """Text as TOML quotes it: as JSON does, but for DEL, and without an escape for half a character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _texts(value: object, where: str) -> Iterator[tuple[str, str]]:
    """Every text below a value of a recipe, keys too, and the field that it stands in."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            name = f"{where}.{key}" if where else str(key)
            yield name, str(key)
            yield from _texts(inner, name)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner, where)
    elif isinstance(value, str | os.PathLike):
        yield where, os.fspath(value)


_RECIPES = resources.files("fastuda.recipe") / "presets"
_VARIANTS = resources.files("fastuda.recipe") / "variants"
_MOST_BASES, _MOST_VARIANTS, _MOST_SECTIONS = 32, 32, 8


def _toml_names(folder: Traversable) -> list[str]:
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def _split(name_or_path: str) -> tuple[str, list[str]]:
    """A recipe's name or path, and the variants after it; a path may have a `+` of its own."""
    match = re.fullmatch(r"(?P<stem>.*\.toml|[^+]*)(?P<variants>(\+[^+/]*)*)", name_or_path)
    if match is None:
        return name_or_path, []
    variants = match["variants"].split("+")[1:]
    if len(variants) > _MOST_VARIANTS:
        raise UsageError(f"recipe {brief(name_or_path, 300)}: more than {_MOST_VARIANTS} variants")
    return match["stem"], variants


def _read_table(name_or_path: str, seen: tuple[str, ...]) -> dict[str, Any]:
    """The merged tables of a recipe, its bases and its variants."""
    stem, variants = _split(name_or_path)
    table = _read_file(stem, seen)
    for name in variants:
        table = _varied(table, name)
    return table


def _varied(table: dict[str, Any], variant: str) -> dict[str, Any]:
    change = tomllib.loads(variant_text(variant))
    merged = _merged(_reset(table, change, f"variant {variant}"), change)
    own = table.get("description", "")
    if isinstance(own, str):  # validation names any other
        merged["description"] = "; ".join(text for text in (own, change["description"]) if text)
    else:
        merged["description"] = own
    return merged


def _read_file(name_or_path: str, seen: tuple[str, ...]) -> dict[str, Any]:
    path = user_path(name_or_path)
    name = on_one_line(name_or_path)
    is_file = path.suffix == ".toml"
    identity = os.path.realpath(path) if is_file else name_or_path
    if identity in seen:
        raise UsageError(f"recipe {name} is its own base: {' -> '.join(map(on_one_line, (*seen, identity)))}")
    if len(seen) >= _MOST_BASES:
        raise UsageError(f"recipe {on_one_line(seen[0])}: more than {_MOST_BASES} bases over one another")
    table = read_toml(path, "recipe") if is_file else parse_toml(preset_text(name_or_path), name)
    base = table.pop("base", None)
    if base is None:
        return _merged(_reset({}, table, name), table)
    if not isinstance(base, str):
        raise UsageError(f"{name}: base must be a recipe's name or path, not {brief(base)}")
    under = _base_path(base, name)
    if _split(base)[0].endswith(".toml") and is_file:
        base = str(path.parent / under)
    below = _read_table(base, (*seen, identity))
    return _merged(_reset(below, table, name), table)


def _base_path(base: str, name: str) -> Path:
    """The base of the recipe `name`; UsageError names that recipe where fastuda has no such base, or variant of it."""
    try:
        stem, variants = _split(base)
        if not stem.endswith(".toml"):
            preset_text(stem)
        for variant in variants:
            variant_text(variant)
        return user_path(base)
    except UsageError as error:
        raise UsageError(f"{name}: base: {error}") from error


# Tables that mean one thing as a whole: a derived recipe replaces them, it does not add to them.
_WHOLE = ("ids", "subsets", "merged")
_USUAL_KINDS = {"model": Model.usual, "optimizer": Optimizer.usual, "mask": Mask.usual}


def _reset(base: dict[str, Any], change: dict[str, Any], origin: str) -> dict[str, Any]:
    """`base` with the parts alone that `change` names, if it does; its `parts` are then done with."""
    return with_parts(base, change.pop("parts"), origin) if "parts" in change else base


def _merged(base: dict[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in change.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), dict) and key not in _WHOLE:
            if "kind" in value and value["kind"] != result[key].get("kind", _USUAL_KINDS.get(key)):
                result[key] = dict(value)  # another network or optimiser has fields, and values, of its own
            elif "layout" in value and value["layout"] != result[key].get("layout"):
                result[key] = dict(value)  # another layout shares no field with the base's
            elif key == "classes" and ("preset" in value or "names" in value):
                result[key] = dict(value)  # another class list has its own colours
            else:
                result[key] = _merged(result[key], value)
        else:
            result[key] = value
    return result


def _fills_a_table(setting: str) -> bool:
    """Sorts what says which table is meant before what is set in it."""
    key = setting.partition("=")[0].strip()
    return not (key.endswith(".kind") or key in ("classes.preset", "classes.names"))


def _parts(key: str, shown: str) -> list[str]:
    """`a`, `b` of `a.b`; a part may stand in quotes, as TOML has it."""
    if not set(key) & {'"', "'"}:
        return key.split(".")
    try:
        table: Any = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"--set {shown}: the field's name is no TOML key ({on_one_line(str(error), 100)})") from error
    parts = []
    while isinstance(table, dict):
        ((part, table),) = table.items()
        parts.append(part)
    return parts


def _apply(table: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    shown = on_one_line(setting, 100)
    if not equals or not key:
        raise UsageError(f"--set {shown}: write it as section.field=value, e.g. --set method.tau=0.9")
    *sections, field = _parts(key.strip(), shown)
    if len(sections) > _MOST_SECTIONS:
        raise UsageError(f"--set {shown}: no field lies in {len(sections)} sections")
    value = _value(text, shown)
    if not sections and field == "parts":
        table.update({"terms": {}} | with_parts(table, value, f"--set {shown}"))
        return
    for section in sections:
        inner = table.setdefault(section, {})
        if not isinstance(inner, dict):
            raise UsageError(f"--set {shown}: {on_one_line(section, 80)} is a value, not a section")
        table = inner
    if field == "kind" and sections and value != table.get("kind", _USUAL_KINDS.get(sections[-1])):
        table.clear()
    table[field] = value
    if sections == ["classes"] and field in ("preset", "names"):
        for own in {"names", "palette", "merged"} - {field}:
            table.pop(own, None)


def _value(text: str, setting: str) -> Any:
    """What stands behind the `=`: TOML, or a bare word or a path, which TOML would want quoted."""
    if "\0" in text:
        raise UsageError(f"--set {setting}: holds a NUL character")
    if "\n" in text:
        return text  # more than a value, and TOML would read on in the next line
    try:
        tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    except (ValueError, RecursionError):
        pass  # of TOML that is too large: named below
    return parse_toml(f"value = {text}", f"--set {setting}")["value"]
