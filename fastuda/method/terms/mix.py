"""L_st: the class-mixed view under source labels where pasted, pseudo-labels elsewhere (paper eq. 4; rows 8, 27)."""

from __future__ import annotations

import torch
from torch import Tensor

from fastuda.method.segmentation import segmentation_loss
from fastuda.method.term import ViewTerm
from fastuda.method.views import MixedViews
from fastuda.recipe import Recipe


class Mix(ViewTerm):
    """On the strong view; a soft paste counts for both labels, each by its share of the pixel."""

    name = "mix"

    def is_on(self, recipe: Recipe) -> bool:
        return recipe.mix.enabled

    def weight_in(self, recipe: Recipe) -> float:
        return recipe.method.mixed_weight

    def needs(self, recipe: Recipe) -> tuple[str, ...]:
        return ("strong",)

    def value(self, views: MixedViews, recipe: Recipe) -> Tensor:
        strong, weight = views.outputs["strong"], recipe.auxiliary.weight
        counts, under_counts = None, views.pseudo_weight
        if under_counts is not None:
            counts = torch.where(views.st.pasted, 1, under_counts)  # the source's labels are true
        loss = segmentation_loss(
            strong, views.st.label_st, weight, auxiliary_labels=views.st_auxiliary_label, weight=counts
        )
        if views.under is not None:
            under = segmentation_loss(
                strong, views.under.label, weight, auxiliary_labels=views.under.two_head, weight=under_counts
            )
            loss = torch.lerp(under, loss, recipe.source_mix.opacity)
        return loss
