"""Masked image consistency: what the teacher says of a whole crop has to be said of one with holes (MIC)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from fastuda.data.loading.batch import DomainBatch
from fastuda.method.added_term import AddedViewTerm
from fastuda.method.draws import Draws
from fastuda.method.pseudo_labels import PseudoLabels
from fastuda.method.segmentation import segmentation_loss
from fastuda.method.views import MixedViews
from fastuda.model.passes import Passes
from fastuda.recipe import Recipe
from fastuda_kernels.masked_mix import normalise


class Masked(AddedViewTerm):
    """Cross-entropy on the strong target crop with blanked blocks, under the teacher's labels (Hoyer et al., CVPR '23).

    Blanked pixels have the mean colour of the input convention. Labels count what `quality` says; without it those
    above `method.tau` count and no others.
    """

    ratio: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Share of the blocks that are blanked, each by a draw of its own."""
    block: Annotated[int, Field(ge=1, le=32768)] = 64
    """Side of a block, pixels; a multiple of a transformer's patches masks whole tokens."""

    def needs(self, recipe: Recipe) -> tuple[str, ...]:
        return ("masked",)

    def images(
        self, source: DomainBatch, target: DomainBatch, pseudo: PseudoLabels, passes: Passes, draws: Draws
    ) -> dict[str, Tensor]:
        batch, height, width = target.strong.shape[:3]
        blocks = (batch, -(-height // self.block), -(-width // self.block))
        kept = draws.uniform("masked", blocks) >= self.ratio
        kept = kept.repeat_interleave(self.block, 1).repeat_interleave(self.block, 2)[:, None, :height, :width]
        return {"masked": normalise(target.strong, passes.normalisation) * kept}

    def value(self, views: MixedViews, recipe: Recipe) -> Tensor:
        weight = views.pseudo_weight
        if weight is None:
            weight = (views.pseudo.confidence > recipe.method.tau).float()
        return segmentation_loss(views.outputs["masked"], views.pseudo.label, 0, weight=weight)


TERM = Masked
