"""What a loss term of the adaptation is to the step."""

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
    """One loss over views of the mixed images: when it is on, which views it needs, its value, its weight.

    `value` is compiled with the other terms: it asks no tensor for a Python number and draws nothing. What a term
    draws at random goes into `images`.
    """

    on_source: ClassVar[bool] = False
    """Whether it has a `source_value`, in the warm-up as in the adaptation."""
    reads_features: ClassVar[bool] = False
    """Whether it reads `Outputs.features`, which are else not kept."""

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

    def needs(self, recipe: Recipe) -> tuple[str, ...]:
        """Names of the views whose answers it reads, see `MixedViews.outputs`; none for a term on the source alone."""
        return ()

    def value(self, views: MixedViews, recipe: Recipe) -> Tensor:
        """The unweighted loss on views, a scalar."""
        raise NotImplementedError

    def source_value(self, outputs: Outputs, labels: Tensor, recipe: Recipe) -> Tensor:
        """The unweighted loss on the source view beside L_s, a scalar; labels are uint8 [B, H, W]."""
        raise NotImplementedError

    def images(
        self, source: DomainBatch, target: DomainBatch, pseudo: PseudoLabels, passes: Passes, draws: Draws
    ) -> dict[str, Tensor]:
        """Images of its own for the student, by the names that `needs` gives them: normalised [B, 3, H, W], as large
        as the crops."""
        return {}
