"""The results of cells that finished before, held against what a report reads of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fastuda.errors import FastudaError
from fastuda.files.text_file import read_text
from fastuda.printable import on_one_line
from fastuda.runs.checkpoint.notes import ADAPTED, SOURCE_ONLY, PseudoLabelRecord, ScorePoint, StageName
from fastuda.study.plan import Cell

_Percent = Annotated[float, Field(ge=0, le=100)]
_Seconds = Annotated[float, Field(ge=0)]


class _Kept(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Scores(_Kept):
    """One evaluation."""

    miou: _Percent
    iou: dict[str, _Percent | None]
    subsets: dict[str, _Percent | None]
    protocol: str


class _Stage(_Kept):
    last: _Scores
    best: _Scores
    history: list[ScorePoint] = Field(default_factory=list)
    pseudo_labels: list[PseudoLabelRecord] = Field(default_factory=list)


class _Results(_Kept):
    data: dict[str, str]
    device: str
    versions: dict[str, str]
    date: str
    seconds: dict[str, _Seconds]
    source_only: _Stage | None = None
    adapted: _Stage | None = None


def kept_results(cell: Cell, path: Path) -> dict[str, Any]:
    """The content of the results.json of a cell that finished; FastudaError where no report could be made of it."""
    try:
        results: dict[str, Any] = json.loads(read_text(path))
        _require_scores(cell, _Results.model_validate(results))
    except OSError as error:
        raise _fault(path, f"cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise _fault(path, f"damaged ({_reason(error)})") from error
    return results


def _fault(path: Path, what: str) -> FastudaError:
    return FastudaError(
        f"{path}: {what}; delete this file, and the run goes on from its checkpoints to the same results"
    )


def _require_scores(cell: Cell, results: _Results) -> None:
    """ValueError unless every stage of the cell is there with a score of every class."""
    names, subsets = set(cell.recipe.classes.build().names), set(cell.recipe.eval.subsets)
    for name, stage in ((SOURCE_ONLY, results.source_only), (ADAPTED, results.adapted)):
        if stage is None and name in _stages(cell):
            raise ValueError(f"{name}: missing")
        if stage is not None and any(one.classes.keys() != names for one in stage.pseudo_labels):
            raise ValueError(f"{name}: pseudo-labels of other classes than the recipe's")
        for scores in (stage.last, stage.best) if stage is not None else ():
            if scores.iou.keys() != names or scores.subsets.keys() != subsets:
                raise ValueError(f"{name}: scores of other classes than the recipe's")


def _stages(cell: Cell) -> list[StageName]:
    """Those that the cell's run scores."""
    starts = cell.init is not None or cell.recipe.warmup.iterations > 0
    return [*([SOURCE_ONLY] if starts else []), *([ADAPTED] if cell.recipe.has_adapted_stage else [])]


def _reason(error: ValueError | RecursionError) -> str:
    if not isinstance(error, ValidationError):
        return on_one_line(str(error))
    first = error.errors(include_url=False, include_context=False)[0]
    return on_one_line(": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"]))))
