"""Tables of a recipe that are one of several, told by their `kind`: networks, optimisers, paste masks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeVar

from pydantic import ModelWrapValidatorHandler, model_validator

from fastuda.errors import nearest
from fastuda.printable import brief
from fastuda.recipe.section import Section

T = TypeVar("T")


class Choice(Section):
    """A table whose `kind` says which of its subclasses it is; validating the base gives that subclass's instance."""

    usual: ClassVar[str]
    """The kind of a table that names none."""
    kind: str

    @classmethod
    @abstractmethod
    def of_kind(cls, kind: object) -> type[Choice]:
        """The class of that kind; ValueError, with the nearest, where there is none."""

    @classmethod
    def chosen(cls, table: Mapping[Any, Any]) -> type[Choice]:
        """The class that `table` is meant to be; ValueError as `of_kind`."""
        return cls.of_kind(table.get("kind", cls.usual))

    @model_validator(mode="wrap")
    @classmethod
    def _choose(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Any:
        if cls.model_fields["kind"].is_required() and isinstance(value, Mapping):
            return cls.chosen(value).model_validate(value)
        return handler(value)


def by_kind(kinds: Mapping[str, T], kind: object) -> T:
    """What is of that kind; ValueError, with the nearest kind or all of them, where there is none."""
    if isinstance(kind, str) and kind in kinds:
        return kinds[kind]
    near = nearest(kind, list(kinds)) if isinstance(kind, str) else ""
    raise ValueError(f"no such kind: {brief(kind)}{near or '; there are ' + ', '.join(kinds)}")
