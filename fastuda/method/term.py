"""What a loss term is to the step: one on mixed views, or one on the source view beside them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from fastuda.data.loading.batch import DomainBatch
from fastuda.method.draws import Draws
from fastuda.method.pseudo_labels import PseudoLabels
from fastuda.method.views import MixedViews
from fastuda.model.passes import Passes
from fastuda.model.segmenter import Outputs
from fastuda.recipe import Recipe

Losses = dict[str, Tensor]
"""Scalar loss terms by name; `source` is L_s and `total` their weighted sum."""


class Term(ABC):
    """One loss: when it is on, its weight, and, in its kinds, what it reads and its value.

    Values are compiled together: they ask no tensor for a Python number and draw nothing.
    """

    reads_features: ClassVar[bool] = False
    """Whether it reads `Outputs.features`, which are else not kept."""
    reads_reference: ClassVar[bool] = False
    """Whether it reads `Outputs.reference`, the features that the student's own start, frozen, has of its images. That
    needs memory for another network, and a pass without gradients."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What logs call it."""

    @abstractmethod
    def is_on(self, recipe: Recipe) -> bool:
        """Whether the recipe trains with it."""

    @abstractmethod
    def weight_in(self, recipe: Recipe) -> float:
        """Its weight in the sum (paper eq. 12)."""


class SourceTerm(Term):
    """A loss on the source view, in the warm-up as in the adaptation."""

    @abstractmethod
    def source_value(self, outputs: Outputs, labels: Tensor, recipe: Recipe) -> Tensor:
        """The unweighted loss, a scalar, of the student's answer to the view and its labels, uint8 [B, H, W]."""


class ViewTerm(Term):
    """A loss on mixed views, in the adaptation. What it draws at random goes into `images`."""

    @abstractmethod
    def needs(self, recipe: Recipe) -> tuple[str, ...]:
        """Names of the views whose answers it reads, see `MixedViews.outputs`."""

    @abstractmethod
    def value(self, views: MixedViews, recipe: Recipe) -> Tensor:
        """The unweighted loss, a scalar."""

    def images(
        self, source: DomainBatch, target: DomainBatch, pseudo: PseudoLabels, passes: Passes, draws: Draws
    ) -> dict[str, Tensor]:
        """Images of its own for the student, by the names that `needs` gives them: normalised [B, 3, H, W], as large
        as the crops."""
        return {}
