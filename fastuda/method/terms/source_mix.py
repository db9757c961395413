"""L_ss of DSP: source crops pasted onto source crops (paper table 4; protocol row 27)."""

from __future__ import annotations

import torch
from torch import Tensor

from fastuda.method.segmentation import segmentation_loss
from fastuda.method.term import ViewTerm
from fastuda.method.views import MixedViews
from fastuda.recipe import Recipe


class SourceMix(ViewTerm):
    """Both heads; a soft paste counts for both labels, each by its share of the pixel."""

    name = "source_mix"

    def is_on(self, recipe: Recipe) -> bool:
        return recipe.source_mix.enabled

    def weight_in(self, recipe: Recipe) -> float:
        return recipe.source_mix.weight

    def needs(self, recipe: Recipe) -> tuple[str, ...]:
        return ("ss",)

    def value(self, views: MixedViews, recipe: Recipe) -> Tensor:
        outputs, weight, opacity = views.outputs["ss"], recipe.auxiliary.weight, recipe.source_mix.opacity
        assert views.ss is not None
        loss = segmentation_loss(outputs, views.ss.label, weight)
        if opacity < 1:
            loss = torch.lerp(segmentation_loss(outputs, views.ss.under_label, weight), loss, opacity)
        return loss
