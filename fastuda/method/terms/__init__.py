"""The loss terms: the method's own, in the order in which they are summed, and those that a recipe adds by name."""

from __future__ import annotations

from fastuda.method.term import SourceTerm, Term, ViewTerm
from fastuda.method.terms.contrast import Pixel, Prototype
from fastuda.method.terms.edge import EdgeHtcm, EdgeHtcmAuxiliary, EdgeMix
from fastuda.method.terms.htcm import Htcm
from fastuda.method.terms.mix import Mix
from fastuda.method.terms.source import Source
from fastuda.method.terms.source_mix import SourceMix
from fastuda.recipe import Recipe

OWN: tuple[Term, ...] = (
    Source(),
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
    return (*OWN, *(added for added in recipe.terms.values() if isinstance(added, Term)))


def reads_reference(recipe: Recipe) -> bool:
    """Whether a term that the recipe trains with compares features with the frozen start's."""
    return any(term.reads_reference and term.is_on(recipe) for term in all_terms(recipe))


def source_terms(recipe: Recipe) -> tuple[SourceTerm, ...]:
    """Those on the source view that the recipe trains with, in both stages."""
    return tuple(term for term in all_terms(recipe) if isinstance(term, SourceTerm) and term.is_on(recipe))


def view_terms(recipe: Recipe) -> tuple[ViewTerm, ...]:
    """Those on mixed views that the recipe trains with."""
    return tuple(term for term in all_terms(recipe) if isinstance(term, ViewTerm) and term.is_on(recipe))
