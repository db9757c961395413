"""A trained model to use: what it says of images, and how that looks laid over them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from fastuda.classes import ClassSet
from fastuda.data.reading.photograph import Photograph
from fastuda.errors import UsageError
from fastuda.evaluation.given_image import GivenImage, photograph_of, several
from fastuda.evaluation.label_bands import Answer, answer_bands, joined
from fastuda.evaluation.tiles import tiled_bands
from fastuda.memory.out_of_memory import memory_told
from fastuda.model.inference import evaluation_logits
from fastuda.model.passes import Passes
from fastuda.model.segmenter import Outputs, Segmenter
from fastuda.printable import on_one_line
from fastuda.recipe import Evaluation, Recipe
from fastuda.report.pictures import overlay

Labels = NDArray[np.uint8]
"""Train ids: a class's position in the recipe's list of classes."""
Confidence = NDArray[np.float32]


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A trained network in eval mode, and what it takes to use it; `load` makes one."""

    network: Segmenter
    recipe: Recipe
    """What the network was trained by; its `eval` says how it is used."""
    passes: Passes
    device: torch.device
    file: Path
    """Where its weights were read."""

    def __repr__(self) -> str:
        return f"<fastuda.Model {on_one_line(self.file)}: {len(self.classes)} classes, on {self.device.type}>"

    @property
    def classes(self) -> ClassSet:
        """The classes by train id: `classes.names[i]`, and `classes.palette[i]` as (red, green, blue) from 0 to 255."""
        return self.recipe.classes.build()

    # A text is a path, not a sequence of letters.
    @overload
    def predict(  # type: ignore[overload-overlap]
        self,
        images: GivenImage,
        *,
        return_confidence: Literal[False] = False,
        tiled: bool = False,
        flip: bool | None = None,
        scales: Sequence[float] | None = None,
    ) -> Labels: ...

    @overload
    def predict(  # type: ignore[overload-overlap]
        self,
        images: Sequence[GivenImage],
        *,
        return_confidence: Literal[False] = False,
        tiled: bool = False,
        flip: bool | None = None,
        scales: Sequence[float] | None = None,
    ) -> list[Labels]: ...

    @overload
    def predict(  # type: ignore[overload-overlap]
        self,
        images: GivenImage,
        *,
        return_confidence: Literal[True],
        tiled: bool = False,
        flip: bool | None = None,
        scales: Sequence[float] | None = None,
    ) -> tuple[Labels, Confidence]: ...

    @overload
    def predict(  # type: ignore[overload-overlap]
        self,
        images: Sequence[GivenImage],
        *,
        return_confidence: Literal[True],
        tiled: bool = False,
        flip: bool | None = None,
        scales: Sequence[float] | None = None,
    ) -> tuple[list[Labels], list[Confidence]]: ...

    @overload
    def predict(  # type: ignore[overload-overlap]
        self,
        images: GivenImage,
        *,
        return_confidence: bool,
        tiled: bool = False,
        flip: bool | None = None,
        scales: Sequence[float] | None = None,
    ) -> Labels | tuple[Labels, Confidence]: ...

    @overload
    def predict(
        self,
        images: Sequence[GivenImage],
        *,
        return_confidence: bool,
        tiled: bool = False,
        flip: bool | None = None,
        scales: Sequence[float] | None = None,
    ) -> list[Labels] | tuple[list[Labels], list[Confidence]]: ...

    def predict(
        self,
        images: Any,
        *,
        return_confidence: bool = False,
        tiled: bool = False,
        flip: bool | None = None,
        scales: Sequence[float] | None = None,
    ) -> Any:
        """Labels of one image, of a list of images or of a batch, each at its own size.

        Each image goes through the network alone, so that its labels do not depend on those it came with, and are to
        the bit what `fastuda predict` writes of it.

        Args:
            images: a file's path, a Pillow image, or uint8 RGB [H, W, 3] as a numpy array or a torch tensor on any
                device; a list of those, kinds and sizes mixed; or a batch [B, H, W, 3], array or tensor. A file is
                turned upright as its EXIF tag says, a Pillow image is taken as it stands.
            return_confidence: also return the largest probability of each pixel.
            tiled: read images larger than `recipe.eval.size` at their own resolution, in overlapping windows.
            flip: average with the mirrored image's answer; None: as `recipe.eval.flip` says.
            scales: average the answers at these multiples of the size; None: as `recipe.eval.scales` says.

        Returns:
            Train ids uint8 [H, W]; a list of those for a list; [B, H, W] for a batch. With `return_confidence` a pair
            of that and of float32 of the same shape.

        Raises:
            FastudaError: a file that is not there or cannot be decoded, a scale out of range, memory that ran out.
            TypeError, ValueError: anything else than such an image, naming what came.
        """
        model = self.augmented(flip=flip, scales=scales)
        given = several(images)
        if given is None:
            answer = model._answer(images, tiled=tiled, confidence=return_confidence)
            return tuple(answer) if return_confidence else answer.label
        answers = [model._answer(image, tiled=tiled, confidence=return_confidence) for image in given]
        labels: Any = [one.label for one in answers]
        confidences: Any = [one.confidence for one in answers]
        if not isinstance(images, Sequence):
            shape = images.shape[:3]
            labels = np.array(labels, np.uint8).reshape(shape)
            confidences = np.array(confidences, np.float32).reshape(shape) if return_confidence else None
        return (labels, confidences) if return_confidence else labels

    def overlay(self, image: GivenImage, labels: Labels, *, strength: float = 0.55) -> Image.Image:
        """The image with the colours of its labels, uint8 [H, W], laid over; pixels without a class stay as they are.

        `strength` is the colours' share, from 0 to 1. Raises as `predict` does, and ValueError for another share, and
        for labels of another kind or size than the image's.
        """
        if not 0 <= strength <= 1:
            raise ValueError(f"strength {strength:g} came; the colours' share is from 0 to 1")
        photograph = photograph_of(image)
        width, height = photograph.size
        found = np.asarray(labels)
        if found.shape != (height, width) or found.dtype != np.uint8:
            raise ValueError(
                f"labels {found.dtype} {list(found.shape)} came; this image's are uint8 [{height}, {width}]"
            )
        pixels = np.asarray(photograph.piece((0, 0, width, height)))
        return Image.fromarray(overlay(pixels, found, self.classes, strength))

    def augmented(self, *, flip: bool | None = None, scales: Sequence[float] | None = None) -> Model:
        """The same model with test-time augmentation as said; None leaves the recipe's (`eval.flip`, `eval.scales`).

        Raises UsageError for a scale out of range.
        """
        changes = {name: value for name, value in (("flip", flip), ("scales", scales)) if value is not None}
        if not changes:
            return self
        try:
            settings = Evaluation.model_validate({**self.recipe.eval.model_dump(), **changes})
        except ValidationError as error:
            problem = error.errors()[0]
            raise UsageError(f"{problem['loc'][0]}: {problem['msg']}") from error
        return replace(self, recipe=self.recipe.model_copy(update={"eval": settings}))

    def answers(self, photograph: Photograph, *, tiled: bool = False, confidence: bool = False) -> Iterator[Answer]:
        """Labels and, if asked for, confidence at the photograph's own size, a band of rows at a time, downwards.

        The whole is resized bicubic to `eval.size` for the network, as in evaluation (protocol row 23); when `tiled`,
        a larger one is read at its own resolution, in overlapping windows of that size.
        """
        size = self.recipe.eval.size

        def outputs_of(pixels: NDArray[np.uint8]) -> Outputs:
            batch = torch.from_numpy(pixels.copy())[None].to(self.device)
            return evaluation_logits(self.network, batch, self.recipe.eval, self.passes)

        width, height = photograph.size
        if tiled and (width > size[0] or height > size[1]):
            return tiled_bands(photograph, size, outputs_of, confidence=confidence)
        outputs = outputs_of(np.asarray(photograph.resized(size)))
        return answer_bands(outputs, (height, width), confidence=confidence)

    def _answer(self, image: GivenImage, *, tiled: bool, confidence: bool) -> Answer:
        photograph = photograph_of(image)
        with memory_told("prediction", self.recipe, self.device):
            return joined(self.answers(photograph, tiled=tiled, confidence=confidence))
