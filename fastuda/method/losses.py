"""The sum of equation 12: every term that is on, and their weights."""

from __future__ import annotations

import torch
from torch import Tensor

from fastuda.method.term import Losses
from fastuda.method.terms import all_terms, source_terms, view_terms
from fastuda.method.views import MixedViews
from fastuda.model.segmenter import Outputs
from fastuda.recipe import Recipe


def source_losses(outputs: Outputs, labels: Tensor, recipe: Recipe) -> Losses:
    """Every unweighted term on the source view, of the student's answer and labels uint8 [B, H, W]."""
    return {term.name: term.source_value(outputs, labels, recipe) for term in source_terms(recipe)}


def mixed_losses(views: MixedViews, recipe: Recipe) -> Losses:
    """Every unweighted term on mixed views that is on; any other has no entry."""
    return {term.name: term.value(views, recipe) for term in view_terms(recipe)}


def weighted_sum(losses: Losses, recipe: Recipe) -> Tensor:
    """L of equation 12 over the terms present (protocol rows 15, 25)."""
    if losses.keys() == {"source"}:
        return losses["source"]  # nothing to weigh, in every iteration of most warm-ups
    weights = {term.name: term.weight_in(recipe) for term in all_terms(recipe)}
    return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
