"""L_s: the source view under its labels (paper eq. 1; protocol rows 1, 16)."""

from __future__ import annotations

from torch import Tensor

from fastuda.method.segmentation import segmentation_loss
from fastuda.method.term import SourceTerm
from fastuda.model.segmenter import Outputs
from fastuda.recipe import Recipe


class Source(SourceTerm):
    """Both heads; the term that all weights are relative to."""

    name = "source"

    def is_on(self, recipe: Recipe) -> bool:
        return True

    def weight_in(self, recipe: Recipe) -> float:
        return 1.0

    def source_value(self, outputs: Outputs, labels: Tensor, recipe: Recipe) -> Tensor:
        return segmentation_loss(outputs, labels, recipe.auxiliary.weight)
