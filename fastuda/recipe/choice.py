"""Tables of a recipe that are one of several, told by their `kind`: networks, optimisers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import ModelWrapValidatorHandler, model_validator

from fastuda.errors import nearest
from fastuda.printable import brief
from fastuda.recipe.section import Section


class Choice(Section):
    """A table whose `kind` says which of its subclasses it is; validating the base gives that subclass's instance."""

    usual: ClassVar[str]
    """The kind of a table that names none."""
    kind: str

    @classmethod
    def kinds(cls) -> Mapping[str, type[Self]]:
        """The tables that there are, by kind."""
        raise NotImplementedError

    @classmethod
    def chosen(cls, table: Mapping[Any, Any]) -> type[Self]:
        """The class that `table` is meant to be; ValueError, with the nearest kind, where there is none of its kind."""
        kind = table.get("kind", cls.usual)
        kinds = cls.kinds()
        if not isinstance(kind, str) or kind not in kinds:
            near = nearest(kind, list(kinds)) if isinstance(kind, str) else ""
            raise ValueError(f"no such kind: {brief(kind)}{near or '; there are ' + ', '.join(kinds)}")
        return kinds[kind]

    @model_validator(mode="wrap")
    @classmethod
    def _choose(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if cls.model_fields["kind"].is_required() and isinstance(value, Mapping):
            return cls.chosen(value).model_validate(value)
        return handler(value)
