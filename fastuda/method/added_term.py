"""A loss term that a recipe adds by name."""

from __future__ import annotations

from fastuda.method.term import Term
from fastuda.recipe import Recipe
from fastuda.recipe.term import TermTable


class AddedTerm(TermTable, Term):
    """A term and its own table in one: its fields are what `[terms.NAME]` can say.

    Its class is the `TERM` of `fastuda/method/terms/NAME.py`, and its `name` is NAME.
    """

    def is_on(self, recipe: Recipe) -> bool:
        return True

    def weight_in(self, recipe: Recipe) -> float:
        return self.weight
