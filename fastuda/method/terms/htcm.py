"""L_hts: the HTCM image, confident target pixels on the source crop (paper eq. 7; protocol rows 9, 10)."""

from __future__ import annotations

from torch import Tensor

from fastuda.method.samples import counted
from fastuda.method.segmentation import segmentation_loss
from fastuda.method.term import ViewTerm
from fastuda.method.views import MixedViews
from fastuda.recipe import Recipe


class Htcm(ViewTerm):
    """Of the main head alone."""

    name = "htcm"

    def is_on(self, recipe: Recipe) -> bool:
        return recipe.htcm.enabled

    def weight_in(self, recipe: Recipe) -> float:
        return recipe.method.mixed_weight

    def needs(self, recipe: Recipe) -> tuple[str, ...]:
        return ("hts",)

    def value(self, views: MixedViews, recipe: Recipe) -> Tensor:
        those = counted(recipe.htcm.samples)
        return segmentation_loss(views.outputs["hts"].main_head(those), views.hts.label_hts[those], 0)
