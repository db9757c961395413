"""Boundary scores and what confidence is worth, image by image at the label's own size."""

from __future__ import annotations

import torch
from torch import Tensor

from fastuda.metrics.boundary import BoundaryMeter, BoundaryScores
from fastuda.metrics.boundary_map import boundary_band
from fastuda.metrics.confidence import ConfidenceMeter, ConfidenceScores
from fastuda.model.segmenter import Outputs
from fastuda.recipe import Recipe
from fastuda_kernels.pseudo_label import pseudo_label

BOUNDARY_RADIUS = 5
"""The band, in pixels of the label, that figure 2's curve and the calibration call boundary."""


class Meters:
    """Both, added to by one image after another."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self._recipe = recipe
        self._names = recipe.classes.build().names
        self._boundary = BoundaryMeter(len(self._names), device)
        self._confidence = ConfidenceMeter(len(self._names), device, (recipe.method.tau,))

    def add(self, outputs: Outputs, label: Tensor) -> None:
        size, corners = (label.shape[0], label.shape[1]), outputs.align_corners
        prediction, confidence = (one[0] for one in pseudo_label(outputs.logits, size, align_corners=corners))
        self._boundary.add(prediction, label)
        band = boundary_band(label, BOUNDARY_RADIUS, len(self._names))
        self._confidence.add(prediction, confidence, label, band)

    @property
    def sums(self) -> list[Tensor]:
        """All that was counted, to be added to that of other shares of a split."""
        return [*self._boundary.sums, *self._confidence.sums]

    def result(self) -> tuple[BoundaryScores, ConfidenceScores]:
        subsets = self._recipe.eval.subsets
        return self._boundary.result(self._names, "full", subsets), self._confidence.result()
