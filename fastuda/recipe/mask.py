"""The recipe's table of which source pixels are pasted onto the target: `[mix.mask]`."""

from __future__ import annotations

from typing import ClassVar, Literal

from fastuda.recipe.choice import Choice
from fastuda.recipe.named import named

PACKAGE = "fastuda.method.masks"


class Mask(Choice):
    """What the paste is made of; the file `fastuda/method/masks/KIND.py` says what any but `classes` is."""

    usual: ClassVar[str] = "classes"

    kind: str
    """Which mask: `classes`."""

    @classmethod
    def of_kind(cls, kind: object) -> type[Mask]:
        mask: type[Mask] = ClassMask if kind == cls.usual else named(PACKAGE, kind, "MASK")
        return mask


class ClassMask(Mask):
    """The pixels of some of the classes present, as `mix` chooses them (protocol row 7)."""

    kind: Literal["classes"] = "classes"
    """Which mask: `classes`, those that `mix.fraction`, `mix.min_class` and `mix.off_by_one` choose."""
