"""Models of a run that are damaged or gone, written anew from the checkpoint of their evaluation."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Literal

from torch import Tensor

from fastuda.errors import FastudaError, UnreadableError
from fastuda.model.weights import read_weights
from fastuda.runs.checkpoint.model_file import ModelFile
from fastuda.runs.checkpoint.notes import Record, StageName
from fastuda.runs.checkpoint.state_file import read_state

log = logging.getLogger(__name__)

Which = Literal["last", "best"]


def held_or_mended(file: ModelFile, stage: StageName, which: Which, record: Record, state: Path) -> bool:
    """Whether a model that was written with the scores `record` can be read, if need be once it was written anew.

    One that is damaged or gone comes again, in the same bits, from the checkpoint `state`, if that is still there and
    is of the same evaluation. Else a damaged one is renamed. Whatever is wrong is said. Raises FastudaError when the
    disk refuses.
    """
    try:
        fault = _fault(file.path)
        if fault is None:
            return True
        tensors = _evaluated(stage, which, record, state)
    except UnreadableError as error:
        log.warning("%s; %s is left as it is and used no further", error, file.path.name)
        return False
    if tensors is not None:
        file.write(tensors)
        log.warning("%s: %s; written anew, in the same bits, from %s", file.path, fault, state.name)
        return True
    log.warning(
        "%s: %s, and no checkpoint of its iteration %d is left to write it anew from; its scores stay in results.json",
        file.path, fault, record.iteration,
    )  # fmt: skip
    with contextlib.suppress(OSError):
        file.path.replace(file.path.with_name(f"{file.path.name}.damaged"))
    return False


def _fault(path: Path) -> str | None:
    """What is wrong with a model's file; None for a sound one. Raises UnreadableError when the system refuses it."""
    try:
        read_weights(path)
    except UnreadableError as error:
        if isinstance(error.__cause__, FileNotFoundError) and not os.path.lexists(path):
            return "gone since it was written"
        raise
    except FastudaError as error:
        return str(error).removeprefix(f"{path}: ").removesuffix("; copy it again")
    return None


def _evaluated(stage: StageName, which: Which, record: Record, state: Path) -> dict[str, Tensor] | None:
    """The model of an evaluation from the checkpoint that was written with it; None where that is no longer there.

    Raises UnreadableError when the system refuses the checkpoint.
    """
    try:
        saved = read_state(state)
    except UnreadableError:
        raise
    except FastudaError:
        return None
    notes = saved.notes.stages.get(saved.stage)
    known = saved.stage == stage and notes is not None and getattr(notes, which) == record
    return saved.average() if known else None
