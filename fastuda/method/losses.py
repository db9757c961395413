"""The sum of equation 12: every term that is on, and their weights."""

from __future__ import annotations

import torch
from torch import Tensor

from fastuda.method.term import Losses
from fastuda.method.terms import all_terms, terms_on
from fastuda.method.views import MixedViews
from fastuda.recipe import Recipe


def mixed_losses(views: MixedViews, recipe: Recipe) -> Losses:
    """Every unweighted term that is on and whose views are there; any other has no entry."""
    there = views.outputs.keys()
    terms = (term for term in terms_on(recipe) if all(name in there for name in term.needs(recipe)))
    return {term.name: term.value(views, recipe) for term in terms}


def weighted_sum(losses: Losses, recipe: Recipe) -> Tensor:
    """L of equation 12 over the terms present (protocol rows 15, 25)."""
    weights = {"source": 1.0, **{term.name: term.weight_in(recipe) for term in all_terms(recipe)}}
    return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
