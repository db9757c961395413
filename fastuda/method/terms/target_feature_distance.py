"""Feature distance on the target: features of what is to be learnt stay near those of the student's start."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from fastuda.data.loading.batch import DomainBatch
from fastuda.method.added_term import AddedViewTerm
from fastuda.method.draws import Draws
from fastuda.method.feature_distance import Form, feature_distance
from fastuda.method.pseudo_labels import PseudoLabels
from fastuda.method.views import MixedViews
from fastuda.model.passes import Passes
from fastuda.recipe import Recipe
from fastuda_kernels.masked_mix import normalise


class TargetFeatureDistance(AddedViewTerm):
    """Distance of the encoder's features on the weak target crop from those of its own start, frozen (VFM-UDA++)."""

    reads_features: ClassVar[bool] = True
    reads_reference: ClassVar[bool] = True

    weight: Annotated[float, Field(ge=0, le=1e6)] = 0.1
    """In the sum of all losses, relative to L_s."""
    form: Form = "smooth-cosine"
    """As `terms.feature_distance` has it."""

    def needs(self, recipe: Recipe) -> tuple[str, ...]:
        return ("target",)

    def images(
        self, source: DomainBatch, target: DomainBatch, pseudo: PseudoLabels, passes: Passes, draws: Draws
    ) -> dict[str, Tensor]:
        return {"target": normalise(target.weak, passes.normalisation)}

    def value(self, views: MixedViews, recipe: Recipe) -> Tensor:
        outputs = views.outputs["target"]
        assert outputs.features is not None
        assert outputs.reference is not None
        return feature_distance(outputs.features, outputs.reference, self.form)


TERM = TargetFeatureDistance
