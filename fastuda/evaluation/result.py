"""What an evaluation of a trained model found, and as a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastuda.data.reading.listing import LeftOut
from fastuda.evaluation.meters import BOUNDARY_RADIUS
from fastuda.evaluation.model import Model
from fastuda.files.disk import write_json
from fastuda.metrics import Scores
from fastuda.metrics.boundary import BoundaryScores
from fastuda.metrics.confidence import ConfidenceScores
from fastuda.runs.provenance import provenance
from fastuda.runtime.device import device_name


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
        "precision": model.passes.precision,
        **provenance(),
    }
    write_json(path, content, indent=2)
