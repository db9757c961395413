"""Feature distance on the source: where things are seen, features stay near those of the student's start (DAFormer)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from fastuda.classes import PRESETS
from fastuda.errors import nearest
from fastuda.method.added_term import AddedSourceTerm
from fastuda.method.feature_distance import Form, feature_distance, positions_of
from fastuda.model.segmenter import Outputs
from fastuda.recipe import Recipe

_THINGS = (
    "traffic light", "traffic sign", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip


class FeatureDistance(AddedSourceTerm):
    """Distance of the encoder's features on the source view from those of its own start, frozen.

    ImageNet knows things by sight that rendered images show badly (Hoyer et al., CVPR '22).
    """

    reads_features: ClassVar[bool] = True
    reads_reference: ClassVar[bool] = True

    weight: Annotated[float, Field(ge=0, le=1e6)] = 0.005
    """In the sum of all losses, relative to L_s: 0.005 with MiT-B5 (DAFormer), 0.1 of the other form (VFM-UDA++)."""
    form: Form = "euclidean"
    """`euclidean`, the norm over a position's features (DAFormer), or `smooth-cosine`, 0.1 · smooth L1 + 0.9 ·
    (1 − cosine) (VFM-UDA++)."""
    classes: tuple[str, ...] = _THINGS
    """Where these are seen; those of them that the recipe has. An empty list counts every position."""
    least_share: Annotated[float, Field(ge=0, le=1)] = 0.75
    """Of a position's pixels that one of those classes must have."""

    def check(self, classes: Sequence[str]) -> None:
        known = {*classes, *PRESETS["cityscapes19"]}
        for name in self.classes:
            if name not in known:
                near = nearest(name, sorted(known))
                raise ValueError(f"terms.{self.name}.classes: neither the recipe nor Cityscapes has {name!r}{near}")
        if self.classes and not set(self.classes) & set(classes):
            raise ValueError(f"terms.{self.name}.classes: the recipe trains none of them; [] counts every position")

    def source_value(self, outputs: Outputs, labels: Tensor, recipe: Recipe) -> Tensor:
        features, reference = outputs.features, outputs.reference
        assert features is not None
        assert reference is not None
        counted = None
        if self.classes:
            names = recipe.classes.build().names
            ids = [train_id for train_id, name in enumerate(names) if name in self.classes]
            size = (features.shape[2], features.shape[3])
            counted = positions_of(labels, ids, size, self.least_share)
        return feature_distance(features, reference, self.form, counted)


TERM = FeatureDistance
