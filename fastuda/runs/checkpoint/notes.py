"""What a run remembers beside its tensors: scores, seconds and failed samples so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

StageName = Literal["source_only", "adapted"]
SOURCE_ONLY: StageName = "source_only"
ADAPTED: StageName = "adapted"
STAGES: tuple[StageName, ...] = (SOURCE_ONLY, ADAPTED)
"""In the order in which a run goes through them."""

Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, validate_assignment=True)


class Record(_Checked):
    """One evaluation's scores; what else they hold is for the record alone."""

    model_config = ConfigDict(extra="allow", frozen=True)

    iteration: Count
    miou: Annotated[float, Field(ge=0, le=100)]
    iou: dict[str, float | None]
    protocol: str
    by_protocol: dict[str, float | None]


Percent = Annotated[float, Field(ge=0, le=100)] | None
"""None where there is nothing to take a share of."""


class ClassPseudoLabels(_Checked):
    """Pseudo-labels of one class, as `metrics.pseudo_labels` has them."""

    share_true: Percent
    share_predicted: Percent
    share_kept: Percent
    precision: Percent
    recall: Percent
    precision_above_tau: Percent
    recall_above_tau: Percent


class PseudoLabels(_Checked):
    """Pseudo-labels held against labels at one evaluation."""

    tau: Annotated[float, Field(ge=0, lt=1)]
    precision: Percent
    precision_above_tau: Percent
    share_kept: Percent
    classes: dict[str, ClassPseudoLabels]


class PseudoLabelRecord(PseudoLabels):
    """And when that was."""

    iteration: Count


class ScorePoint(_Checked):
    """One evaluation's mIoU, percent."""

    iteration: Count
    miou: Annotated[float, Field(ge=0, le=100)]


class StageNotes(_Checked):
    """One stage so far."""

    seconds: Seconds = 0.0
    """Device time of its iterations."""
    last: Record | None = None
    """The newest evaluation."""
    best: Record | None = None
    """The evaluation of the highest mIoU; chosen on the very images that it is scored on."""
    history: list[ScorePoint] = Field(default_factory=list)
    """By evaluation, the oldest first; empty so far in a run that was begun when it was not kept."""
    pseudo_labels: list[PseudoLabelRecord] = Field(default_factory=list)
    """By evaluation, the oldest first (`eval.pseudo_labels`)."""

    def add_score(self, record: Record) -> None:
        """Keep an evaluation; one that is made again takes the place of its earlier self."""
        point = ScorePoint(iteration=record.iteration, miou=record.miou)
        self.last = record
        self.history = [*(one for one in self.history if one.iteration < record.iteration), point]

    def add_pseudo_labels(self, record: PseudoLabelRecord) -> None:
        """Keep what an evaluation found; one that is made again takes the place of its earlier self."""
        self.pseudo_labels = [*(one for one in self.pseudo_labels if one.iteration < record.iteration), record]


class Notes(_Checked):
    """A run so far."""

    warmup: bool
    """Whether the run has a warm-up stage."""
    stages: dict[StageName, StageNotes] = Field(default_factory=dict)
    checkpoints: Count = 0
    """How many were written."""
    rows: Count = 0
    """Rows of log.jsonl so far; 0 in a run that was begun when they were not counted."""
    stalled: Seconds = 0.0
    """Seconds that training stood still for them."""
    reference: str | None = None
    """SHA-256 over the weights of the frozen start, where terms compare features with it."""
    failed: dict[Literal["source", "target", "labelled_target"], dict[str, str]] = Field(default_factory=dict)
    """Samples of each split that failed while they were read, by name, and why (`data.on_error`)."""

    def add_failed(self, failed: Mapping[Literal["source", "target", "labelled_target"], Mapping[str, str]]) -> None:
        """Keep samples that failed, each with the reason of its first failure."""
        for domain, reasons in failed.items():
            if reasons:
                self.failed[domain] = {**reasons, **self.failed.get(domain, {})}
