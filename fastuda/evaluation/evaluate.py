"""A trained model evaluated on any labelled data set, its predictions kept."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastuda.classes import Values, known_values
from fastuda.data.checking.audit import domain_of
from fastuda.data.datasets import prepare_evaluation, with_demo_data
from fastuda.data.loading.evaluation_loader import EvaluationLoader
from fastuda.data.reading.listing import LeftOut
from fastuda.errors import UsageError
from fastuda.evaluation.label_bands import label_at
from fastuda.evaluation.label_files import label_ending, require_free, write_class_values, write_label
from fastuda.evaluation.load import load
from fastuda.evaluation.model import Model
from fastuda.evaluation.scoring import EVALUATION_BATCH
from fastuda.evaluation.scoring import evaluate as scores_by_protocol
from fastuda.files.disk import write_json
from fastuda.files.paths import user_path
from fastuda.layouts import LAYOUTS, one_of
from fastuda.metrics import Scores
from fastuda.metrics.boundary import BoundaryMeter, BoundaryScores
from fastuda.metrics.boundary_map import boundary_band
from fastuda.metrics.confidence import ConfidenceMeter, ConfidenceScores
from fastuda.model.segmenter import Outputs
from fastuda.recipe import Domain, Recipe
from fastuda.report.display import Display, display_of
from fastuda.runs.provenance import provenance
from fastuda.runtime.device import device_name
from fastuda_kernels.pseudo_label import pseudo_label

BOUNDARY_RADIUS = 5
"""The band, in pixels of the label, that figure 2's curve and the calibration call boundary."""


@dataclass(frozen=True)
class EvaluationResult:
    """All that an evaluation of a trained model found."""

    by_protocol: dict[str, Scores]
    """`full`: at each label's own size; `released`: labels resized to the network's input, as the authors' code does
    (protocol row 23)."""
    data: str
    """Fingerprint of the evaluation split."""
    left_out: LeftOut
    """What of the split was not scored, by reason."""
    boundary: BoundaryScores | None = None
    """At the labels' own size (`full` protocol); None unless asked for, as `confidence`."""
    confidence: ConfidenceScores | None = None

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur, percent, at the labels' own size."""
        return self.by_protocol["full"].miou

    @property
    def iou(self) -> dict[str, float]:
        """IoU by class name, percent, at the labels' own size; NaN for a class that neither label nor answer has."""
        return self.by_protocol["full"].iou

    def to_json(self) -> dict[str, Any]:
        """Scores by protocol, and `boundary` and `confidence` where there are such."""
        content: dict[str, Any] = {protocol: one.to_json() for protocol, one in self.by_protocol.items()}
        if self.boundary is not None and self.confidence is not None:
            content["boundary"] = self.boundary.to_json()
            content["confidence"] = {"boundary_radius": BOUNDARY_RADIUS, **self.confidence.to_json()}
        return content


def evaluate(
    model: Model | str | os.PathLike[str],
    target: str | os.PathLike[str] | None = None,
    *,
    split: str | None = None,
    layout: str | None = None,
    flip: bool | None = None,
    scales: Sequence[float] | None = None,
    boundary: bool = False,
    save_predictions: str | os.PathLike[str] | None = None,
    values: Values = "label-ids",
    display: Display | bool = True,
) -> EvaluationResult:
    """Scores of a trained model on a labelled split: the recipe's target or another data set.

    Memory does not grow with the number of images.

    Args:
        model: what `load` gives, or a path for it: `evaluate("runs/demo")` scores the run's last adapted model.
        target: the data set's folder; None: the recipe's target.
        split: which of its splits, where its layout has such; None: the one the recipe names (`target.val_split`).
        layout: the folder's layout; None: that of the recipe's target.
        flip, scales: test-time augmentation; None: as `recipe.eval` says.
        boundary: also score boundaries and calibration, and follow figure 2's curve.
        save_predictions: a folder for a label PNG an image, at its label's size, and for classes.json.
        values: what the label PNGs hold, `label-ids` (Cityscapes', with free ones for own classes) or `train-ids`.
        display: True: progress on the standard output; False: none; or where to show it.

    Raises:
        FastudaError: a model or data set that is not there, one that is not labelled, memory that ran out.
    """
    values = known_values(values)
    display = display_of(display)
    model = model if isinstance(model, Model) else load(model)
    model = model.augmented(flip=flip, scales=scales)
    recipe = with_demo_data(model.recipe, display.task)
    packed = prepare_evaluation(recipe, _domain(recipe, target, split, layout), display.task)
    loader = EvaluationLoader(packed, EVALUATION_BATCH, recipe.runtime.loader_threads, model.device)
    out = None if save_predictions is None else user_path(save_predictions)
    meters = _Meters(recipe, model.device) if boundary else None

    def look(name: str, outputs: Outputs, label: Tensor) -> None:
        if out is not None:
            own = label_at(outputs, (label.shape[0], label.shape[1]))
            write_label(out, name, own, model.classes, values)
        if meters is not None:
            meters.add(outputs, label)

    if out is not None:
        require_free(out, packed.names, (label_ending(values),))
        write_class_values(out, model.classes, values)
    by_protocol = scores_by_protocol(
        model.network,
        loader,
        recipe,
        model.passes,
        progress=display.task("Evaluating"),
        on_image=look if out is not None or boundary else None,
    )
    found = meters.result() if meters is not None else (None, None)
    return EvaluationResult(by_protocol, packed.fingerprint, packed.left_out, *found)


class _Meters:
    """Boundary scores and what confidence is worth, image by image at the label's own size."""

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

    def result(self) -> tuple[BoundaryScores, ConfidenceScores]:
        subsets = self._recipe.eval.subsets
        return self._boundary.result(self._names, "full", subsets), self._confidence.result()


def write_result(path: Path, found: EvaluationResult, model: Model) -> None:
    """Scores as JSON with model, recipe, seed, data, device, versions and command; written whole or not at all."""
    content = {
        **found.to_json(),
        "model": str(model.file),
        "description": model.recipe.description,
        "seed": model.recipe.seed,
        "flip": model.recipe.eval.flip,
        "scales": list(model.recipe.eval.scales),
        "data": {"evaluation": found.data},
        "left_out": {"evaluation": found.left_out.to_json()},
        "device": device_name(model.device),
        **provenance(),
    }
    write_json(path, content, indent=2)


def _domain(recipe: Recipe, root: str | os.PathLike[str] | None, split: str | None, layout: str | None) -> Domain:
    domain, folder = recipe.target, None if root is None else user_path(root).absolute()
    if layout is not None and layout != domain.layout:
        if folder is None:
            raise UsageError(f"layout {layout}: say where that data set lies (--target DIR, in Python target=)")
        domain = domain_of(recipe, layout, folder)
    changes: dict[str, object] = {}
    if folder is not None:
        changes["root"] = folder
    if split is not None and not LAYOUTS[domain.layout].splits:
        having = one_of([name for name, known in LAYOUTS.items() if known.splits])
        raise UsageError(f"split {split}: only {having} has splits by name, and this data set is {domain.layout}")
    if split is not None:
        changes["val_split"] = split
    return domain.model_copy(update=changes)
