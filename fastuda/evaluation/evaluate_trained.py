"""A trained model evaluated on any labelled data set, its predictions kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastuda.classes import Values
from fastuda.data.checking.audit import domain_of
from fastuda.data.datasets import Progress, prepare_evaluation, with_demo_data
from fastuda.data.loading.evaluation_loader import EvaluationLoader
from fastuda.data.reading.listing import LeftOut
from fastuda.errors import UsageError
from fastuda.evaluation.evaluate import EVALUATION_BATCH, evaluate
from fastuda.evaluation.label_bands import label_at
from fastuda.evaluation.label_files import label_ending, require_free, write_class_values, write_label
from fastuda.evaluation.trained import Trained
from fastuda.files.disk import write_json
from fastuda.files.paths import user_path
from fastuda.layouts import LAYOUTS, one_of
from fastuda.metrics import Scores
from fastuda.metrics.boundary import BoundaryMeter, BoundaryScores
from fastuda.metrics.boundary_map import boundary_band
from fastuda.metrics.confidence import ConfidenceMeter, ConfidenceScores
from fastuda.model.segmenter import Outputs
from fastuda.recipe import Domain, Recipe
from fastuda.runs.provenance import provenance
from fastuda.runtime.device import device_name
from fastuda_kernels.pseudo_label import pseudo_label

BOUNDARY_RADIUS = 5
"""The band, in pixels of the label, that figure 2's curve and the calibration call boundary."""


@dataclass(frozen=True)
class EvaluationResult:
    """All that an evaluation of a trained model found."""

    by_protocol: dict[str, Scores]
    data: str
    """Fingerprint of the evaluation split."""
    left_out: LeftOut
    """What of the split was not scored, by reason."""
    boundary: BoundaryScores | None = None
    """At the labels' own size (`full` protocol); None unless asked for, as `confidence`."""
    confidence: ConfidenceScores | None = None

    def to_json(self) -> dict[str, Any]:
        """Scores by protocol, and `boundary` and `confidence` where there are such."""
        content: dict[str, Any] = {protocol: one.to_json() for protocol, one in self.by_protocol.items()}
        if self.boundary is not None and self.confidence is not None:
            content["boundary"] = self.boundary.to_json()
            content["confidence"] = {"boundary_radius": BOUNDARY_RADIUS, **self.confidence.to_json()}
        return content


def evaluate_trained(
    trained: Trained,
    progress: Progress,
    *,
    root: Path | None = None,
    split: str | None = None,
    layout: str | None = None,
    save_predictions: Path | None = None,
    boundary: bool = False,
    values: Values = "label-ids",
) -> EvaluationResult:
    """Scores on the recipe's target or, by `root`, `split` and `layout`, on another data set.

    `save_predictions` receives a label PNG (as `predict` writes, by `values`) for every image, at its label's own size,
    and classes.json. `boundary` adds
    boundary scores, calibration and figure 2's curve. Memory does not grow with the number of images. Raises
    FastudaError for a data set that is not there or not labelled.
    """
    recipe = with_demo_data(trained.recipe, progress)
    packed = prepare_evaluation(recipe, _domain(recipe, root, split, layout), progress)
    loader = EvaluationLoader(packed, EVALUATION_BATCH, recipe.runtime.loader_threads, trained.device)
    classes = recipe.classes.build()
    meters = _Meters(recipe, trained.device) if boundary else None

    def look(name: str, answer: Outputs, label: Tensor) -> None:
        if save_predictions is not None:
            own = label_at(answer, (label.shape[0], label.shape[1]))
            write_label(save_predictions, name, own, classes, values)
        if meters is not None:
            meters.add(answer, label)

    if save_predictions is not None:
        require_free(save_predictions, packed.names, (label_ending(values),))
        write_class_values(save_predictions, classes, values)
    watched = save_predictions is not None or boundary
    by_protocol = evaluate(
        trained.model,
        loader,
        recipe,
        trained.passes,
        progress=progress("Evaluating"),
        on_image=look if watched else None,
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

    def add(self, answer: Outputs, label: Tensor) -> None:
        size = (label.shape[0], label.shape[1])
        found = pseudo_label(answer.logits, size, align_corners=answer.align_corners)
        prediction, confidence = (one[0] for one in found)
        self._boundary.add(prediction, label)
        band = boundary_band(label, BOUNDARY_RADIUS, len(self._names))
        self._confidence.add(prediction, confidence, label, band)

    def result(self) -> tuple[BoundaryScores, ConfidenceScores]:
        subsets = self._recipe.eval.subsets
        return self._boundary.result(self._names, "full", subsets), self._confidence.result()


def write_result(path: Path, found: EvaluationResult, trained: Trained) -> None:
    """Scores as JSON with model, recipe, seed, data, device, versions and command; written whole or not at all."""
    content = {
        **found.to_json(),
        "model": str(trained.file),
        "description": trained.recipe.description,
        "seed": trained.recipe.seed,
        "flip": trained.recipe.eval.flip,
        "scales": list(trained.recipe.eval.scales),
        "data": {"evaluation": found.data},
        "left_out": {"evaluation": found.left_out.to_json()},
        "device": device_name(trained.device),
        **provenance(),
    }
    write_json(path, content, indent=2)


def _domain(recipe: Recipe, root: Path | None, split: str | None, layout: str | None) -> Domain:
    domain = recipe.target
    if layout is not None and layout != domain.layout:
        if root is None:
            raise UsageError(f"--layout {layout}: say where that data set lies with --target DIR")
        domain = domain_of(recipe, layout, root)
    changes: dict[str, object] = {}
    if root is not None:
        changes["root"] = user_path(root).absolute()
    if split is not None and not LAYOUTS[domain.layout].splits:
        having = one_of([name for name, known in LAYOUTS.items() if known.splits])
        raise UsageError(f"--split {split}: only {having} has splits by name, and this data set is {domain.layout}")
    if split is not None:
        changes["val_split"] = split
    return domain.model_copy(update=changes)
