"""The loss terms: the method's own, in the order in which they are summed, and those that a recipe adds by name."""

from __future__ import annotations

from fastuda.method.term import Term
from fastuda.method.terms.contrast import Pixel, Prototype
from fastuda.method.terms.edge import EdgeHtcm, EdgeHtcmAuxiliary, EdgeMix
from fastuda.method.terms.htcm import Htcm
from fastuda.method.terms.mix import Mix
from fastuda.method.terms.source_mix import SourceMix
from fastuda.recipe import Recipe

OWN: tuple[Term, ...] = (
    Mix(),
    EdgeMix(),
    Htcm(),
    EdgeHtcm(),
    EdgeHtcmAuxiliary(),
    Pixel(),
    Prototype(),
    SourceMix(),
)


def all_terms(recipe: Recipe) -> tuple[Term, ...]:
    """Every term that the recipe knows of, on or off."""
    added = tuple(recipe.terms.values())
    assert all(isinstance(one, Term) for one in added)
    return (*OWN, *added)  # type: ignore[arg-type]


def terms_on(recipe: Recipe) -> tuple[Term, ...]:
    """Those over mixed views that the recipe trains with."""
    return tuple(term for term in all_terms(recipe) if term.is_on(recipe) and term.needs(recipe))


def source_terms(recipe: Recipe) -> tuple[Term, ...]:
    """Those on the source view that it trains with beside L_s."""
    return tuple(term for term in all_terms(recipe) if term.on_source and term.is_on(recipe))
