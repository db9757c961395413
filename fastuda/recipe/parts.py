"""The parts of the method that a variant is made of: it names its own, and all others are off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastuda.errors import UsageError
from fastuda.printable import brief
from fastuda.recipe.named import names_in
from fastuda.recipe.term import PACKAGE

SWITCHES = {
    "mix": ("mix", "enabled"),
    "source_mix": ("source_mix", "enabled"),
    "htcm": ("htcm", "enabled"),
    "pixel": ("contrast", "pixel"),
    "prototype": ("contrast", "prototype"),
    "edge": ("edge", "enabled"),
    "quality": ("quality", "enabled"),
}
"""Where each of the method's own parts is switched on; a further term is on where its table stands."""


def with_parts(table: Mapping[str, Any], parts: object, origin: str) -> dict[str, Any]:
    """A recipe's table with those parts alone; UsageError, naming `origin`, for what is no part.

    A table that is no table is left for validation to name.
    """
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise UsageError(f'{origin}: parts: a list of names, such as ["mix", "htcm"], not {brief(parts)}')
    further = [part for part in parts if part not in SWITCHES]
    for part in further:
        if part not in names_in(PACKAGE):
            raise UsageError(f"{origin}: parts: {brief(part)} is none; there are {', '.join(SWITCHES)}")
    result = dict(table)
    for part, (section, field) in SWITCHES.items():
        before = result.get(section, {})
        if isinstance(before, Mapping):
            result[section] = {**before, field: part in parts}
    terms = result.pop("terms", {})
    known = terms if isinstance(terms, Mapping) else {}
    if further:
        result["terms"] = {part: known.get(part, {}) for part in further}
    return result
