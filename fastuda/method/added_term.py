"""Loss terms that a recipe adds by name: a term and its own table in one.

The fields of such a class are what `[terms.NAME]` can say. It is the `TERM` of `fastuda/method/terms/NAME.py`.
"""

from __future__ import annotations

from typing import ClassVar

from fastuda.method.term import SourceTerm, Term, ViewTerm
from fastuda.recipe import Recipe
from fastuda.recipe.term import TermTable


class _Added(TermTable, Term):
    reads_features: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """That of its file."""
        return type(self).__module__.rpartition(".")[2]

    def is_on(self, recipe: Recipe) -> bool:
        return True

    def weight_in(self, recipe: Recipe) -> float:
        return self.weight


class AddedViewTerm(_Added, ViewTerm):
    """A further term on mixed views; no warm-up depends on it."""


class AddedSourceTerm(_Added, SourceTerm):
    """A further term on the source view; a warm-up depends on all that its table says."""

    of_warmup: ClassVar[tuple[str, ...] | None] = None
