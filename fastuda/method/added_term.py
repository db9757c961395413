"""A loss term that a recipe adds by name."""

from __future__ import annotations

from typing import ClassVar

from fastuda.method.term import Term
from fastuda.recipe import Recipe
from fastuda.recipe.term import TermTable


class AddedTerm(TermTable, Term):
    """A term and its own table in one: its fields are what `[terms.NAME]` can say.

    Its class is the `TERM` of `fastuda/method/terms/NAME.py`. One that touches the warm-up is `on_source` and says in
    `of_warmup` on which of its fields the warm-up then depends.
    """

    on_source: ClassVar[bool] = False
    reads_features: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """That of its file."""
        return type(self).__module__.rpartition(".")[2]

    def is_on(self, recipe: Recipe) -> bool:
        return True

    def weight_in(self, recipe: Recipe) -> float:
        return self.weight
