"""The authors' later edge variant: bands around the paste masks, the auxiliary head on x_hts (protocol row 25)."""

from __future__ import annotations

from torch import Tensor

from fastuda.method.samples import counted
from fastuda.method.segmentation import segmentation_loss
from fastuda.method.term import ViewTerm
from fastuda.method.views import MixedViews
from fastuda.recipe import Edge, Recipe


class EdgeMix(ViewTerm):
    """The band around the class-mix mask, both heads (row 25 b)."""

    name = "edge_mix"

    def is_on(self, recipe: Recipe) -> bool:
        return recipe.edge.enabled

    def weight_in(self, recipe: Recipe) -> float:
        return recipe.method.mixed_weight * recipe.edge.paste_weight

    def needs(self, recipe: Recipe) -> tuple[str, ...]:
        return ("strong",)

    def value(self, views: MixedViews, recipe: Recipe) -> Tensor:
        band = views.st.band_st
        assert band is not None
        loss = segmentation_loss(
            views.outputs["strong"],
            views.st.label_st,
            recipe.auxiliary.weight,
            auxiliary_labels=views.st_auxiliary_label,
            mask=band,
        )
        return _if_all_have(band, loss, recipe.edge)


class EdgeHtcm(ViewTerm):
    """The band around M_ht outside the pasted classes, main head (row 25 c)."""

    name = "edge_htcm"

    def is_on(self, recipe: Recipe) -> bool:
        return recipe.edge.enabled

    def weight_in(self, recipe: Recipe) -> float:
        return recipe.method.mixed_weight * recipe.edge.htcm_weight

    def needs(self, recipe: Recipe) -> tuple[str, ...]:
        return ("hts",)

    def value(self, views: MixedViews, recipe: Recipe) -> Tensor:
        band, those = views.hts.band_hts, counted(recipe.edge.samples)
        assert band is not None
        main = views.outputs["hts"].main_head(those)
        loss = segmentation_loss(main, views.hts.label_hts[those], 0, mask=band[those])
        return _if_all_have(band, loss, recipe.edge)


class EdgeHtcmAuxiliary(ViewTerm):
    """The auxiliary head on x_hts (row 25 d)."""

    name = "edge_htcm_auxiliary"

    def is_on(self, recipe: Recipe) -> bool:
        return recipe.edge.enabled and recipe.model.has_auxiliary

    def weight_in(self, recipe: Recipe) -> float:
        return recipe.method.mixed_weight * recipe.edge.htcm_auxiliary_weight

    def needs(self, recipe: Recipe) -> tuple[str, ...]:
        return ("hts",)

    def value(self, views: MixedViews, recipe: Recipe) -> Tensor:
        those = counted(recipe.edge.samples)
        return segmentation_loss(views.outputs["hts"].auxiliary_head(those), views.hts_auxiliary_label[those], 0)


def _if_all_have(band: Tensor, loss: Tensor, settings: Edge) -> Tensor:
    """The loss on a band, bool [B, H, W]; as released nothing if any image has none of it."""
    return loss * band.flatten(1).any(1).all() if settings.all_or_none else loss
