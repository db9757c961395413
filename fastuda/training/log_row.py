"""What a row of log.jsonl holds, so that no other line is taken for one."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fastuda.runs.checkpoint.notes import PseudoLabels, StageName

Row = dict[str, Any]

_FLOAT32 = 3.5e38
"""A little more than TensorBoard's numbers can be."""
_Iteration = Annotated[int, Field(ge=0, le=10**9)]
_Loss = Annotated[float, Field(ge=-_FLOAT32, le=_FLOAT32)]
_NotNegative = Annotated[float, Field(ge=0, le=_FLOAT32)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Percent = Annotated[float, Field(ge=0, le=100)]


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _TrainingRow(_Checked):
    stage: StageName
    iteration: _Iteration
    losses: dict[str, _Loss]
    iterations_per_second: _NotNegative
    waiting_for_data: _Share
    lr: _NotNegative
    time: _NotNegative


class _Scores(_Checked):
    protocol: Literal["full", "released"]
    miou: _Percent | None
    iou: dict[str, _Percent | None]
    pixel_accuracy: _Percent | None
    mean_accuracy: _Percent | None
    absent: list[str]
    subsets: dict[str, _Percent | None]


class _EvaluationRow(_Checked):
    stage: StageName
    iteration: _Iteration
    scores: _Scores
    pseudo_labels: PseudoLabels | None = None
    time: _NotNegative


_ROW: TypeAdapter[_TrainingRow | _EvaluationRow] = TypeAdapter(_TrainingRow | _EvaluationRow)


def read_row(line: bytes) -> Row | None:
    """The row that a line of log.jsonl holds; None for whatever fastuda does not write."""
    try:
        return _ROW.validate_json(line).model_dump(exclude_unset=True)
    except ValidationError:
        return None
