"""L_pixel and L_pro between the two views of x_st or, by the recipe, of x_hts (paper eq. 8-11, table 6; row 12)."""

from __future__ import annotations

from torch import Tensor

from fastuda.method.contrast import pixel_loss, prototype_loss
from fastuda.method.term import ViewTerm
from fastuda.method.views import MixedViews
from fastuda.recipe import Recipe


class _Contrast(ViewTerm):
    def weight_in(self, recipe: Recipe) -> float:
        return recipe.method.contrast_weight

    def needs(self, recipe: Recipe) -> tuple[str, ...]:
        return ("weak", "strong") if recipe.contrast.on == "st" else ("hts weak", "hts")

    def _pair(self, views: MixedViews, recipe: Recipe) -> tuple[Tensor, Tensor]:
        first, second = self.needs(recipe)
        return views.outputs[first].logits, views.outputs[second].logits


class Pixel(_Contrast):
    """PiCL (row 13)."""

    name = "pixel"

    def is_on(self, recipe: Recipe) -> bool:
        return recipe.contrast.pixel

    def value(self, views: MixedViews, recipe: Recipe) -> Tensor:
        gathered = recipe.distributed.gather_negatives
        return pixel_loss(*self._pair(views, recipe), recipe.contrast.pixel_scale, gathered=gathered)


class Prototype(_Contrast):
    """ProCL (row 14)."""

    name = "prototype"

    def is_on(self, recipe: Recipe) -> bool:
        return recipe.contrast.prototype

    def value(self, views: MixedViews, recipe: Recipe) -> Tensor:
        labels = views.hts.label_confident if recipe.contrast.on == "st" else views.hts.label_hts
        gathered = recipe.distributed.gather_negatives
        return prototype_loss(*self._pair(views, recipe), labels, recipe.contrast, gathered=gathered)
