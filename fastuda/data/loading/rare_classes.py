"""Rare-class sampling: which class a position of the source's order is for, which image, and which crop (DAFormer).

Like all of the sampling it has no state: class, image and crops follow from (seed, position) and the packed labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastuda.errors import FastudaError
from fastuda.recipe import Sampling

Box = tuple[int, int, int, int]
"""Top, left, height, width."""
_STREAM, _IMAGE, _CROPS = 3, 0, 1
_CROP_ATTEMPTS = 10


@dataclass(frozen=True)
class RareClasses:
    """The distribution of classes, and the images that show each (Hoyer et al., CVPR '22, eq. 7, 8)."""

    seed: int
    min_crop_pixels: int
    classes: NDArray[np.int64]
    """Train ids [K] of the classes that an image shows."""
    probabilities: NDArray[np.float64]
    """Of each of them, [K]."""
    images: list[NDArray[np.int64]]
    """Numbers of the samples that show each of them."""

    @classmethod
    def of(cls, pixels: NDArray[np.int64], settings: Sampling, seed: int) -> RareClasses:
        """From the packed labels' pixels by sample and train id, [N, C + 1], the ignored last.

        Classes that no image shows `min_pixels` of are never drawn. FastudaError when there is no other.
        """
        counts = pixels[:, :-1]
        shows = counts >= settings.min_pixels
        classes = np.flatnonzero(shows.any(0))
        if not len(classes):
            raise FastudaError(
                f"sampling.rare_classes: no source image shows {settings.min_pixels} pixels of any class; lower "
                "sampling.min_pixels, which counts pixels of the labels as they are packed"
            )
        share = counts.sum(0) / counts.sum()
        exponents = -share[classes] / settings.temperature  # exp(1 / T) is common to all
        weights = np.exp(exponents - exponents.max())
        return cls(
            seed=seed,
            min_crop_pixels=settings.min_crop_pixels,
            classes=classes,
            probabilities=weights / weights.sum(),
            images=[np.flatnonzero(shows[:, train_id]) for train_id in classes],
        )

    def told(self, names: Sequence[str]) -> str:
        """How often each class is drawn, the most often first, for the log; `names` are all classes', by train id."""
        order = np.argsort(-self.probabilities, kind="stable")
        return ", ".join(f"{names[self.classes[i]]} {100 * self.probabilities[i]:.3g} %" for i in order)

    def draw(self, position: int) -> tuple[int, int]:
        """Train id and sample number of a position."""
        rng = np.random.default_rng((self.seed, _STREAM, _IMAGE, position))
        place = int(rng.choice(len(self.classes), p=self.probabilities))
        return int(self.classes[place]), int(rng.choice(self.images[place]))

    def crop(
        self,
        position: int,
        first: Box,
        flipped: bool,
        label: NDArray[np.uint8],
        another: Callable[[np.random.Generator], Box],
    ) -> Box:
        """The first of ten boxes, `first` and nine that `another` draws, that shows enough of the position's class.

        Boxes lie in the view after its flip, `label`, uint8 [H, W], before it.
        """
        train_id, _ = self.draw(position)
        seen = (label[:, ::-1] if flipped else label) == train_id
        rng, box = np.random.default_rng((self.seed, _STREAM, _CROPS, position)), first
        for attempt in range(_CROP_ATTEMPTS):
            box = another(rng) if attempt else first
            top, left, height, width = box
            if np.count_nonzero(seen[top : top + height, left : left + width]) >= self.min_crop_pixels:
                break
        return box
