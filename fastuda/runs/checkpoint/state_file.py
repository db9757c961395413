"""A stage's whole state in one safetensors file: what it holds, how it is read back, what is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from fastuda.errors import FastudaError, UnreadableError
from fastuda.method.optimizer import state_of
from fastuda.method.state import TrainingState
from fastuda.model.archive import read_archive
from fastuda.model.weights import save_weights
from fastuda.printable import on_one_line
from fastuda.runs.checkpoint.notes import Notes, StageName
from fastuda.runs.checkpoint.snapshot import (
    SCALER_FIELDS,
    WINDOW,
    Snapshot,
    averaged,
    optimizer_prefix,
    take_snapshot,
)

FORMAT = "fastuda-state-2"
_SHOWN = 3


def _parsed(text: str) -> object:
    """JSON, whose texts may hold the stray bytes of a file's name; ValueError for anything else."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("tables in tables without end") from None


class _Header(BaseModel):
    """The text that lies beside the tensors."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    format: Literal["fastuda-state-2"]
    stage: StageName
    iteration: Annotated[int, Field(ge=0)]
    window: Annotated[int, Field(ge=0)]
    notes: Annotated[Notes, BeforeValidator(_parsed)]


@dataclass(frozen=True)
class SavedState:
    """A training checkpoint as read from disk."""

    path: Path
    tensors: dict[str, Tensor]
    stage: StageName
    iteration: int
    notes: Notes
    window: int
    """Iterations since the log's last row, whose summed losses are among the tensors."""

    def apart_from_tensors(self) -> SavedState:
        """What lies beside the tensors: which moment of the run it is, and what is known of it."""
        return replace(self, tensors={})

    def average(self) -> dict[str, Tensor]:
        """The averaged model's tensors, under the model's own names."""
        return averaged(self.tensors)

    def window_sums(self) -> dict[str, Tensor]:
        """The losses since the log's last row, summed, by name."""
        return {key.removeprefix(WINDOW): value for key, value in self.tensors.items() if key.startswith(WINDOW)}


def save_state(path: Path, state: TrainingState, stage: StageName, notes: Notes) -> None:
    """Write a stage's state now and here; atomic. Raises FastudaError."""
    write_state(path, take_snapshot(state, stage, int(state.iteration), notes))


def write_state(path: Path, snapshot: Snapshot) -> None:
    """Write what was copied off the device, sealed with its SHA-256; atomic. Raises FastudaError."""
    save_weights(path, snapshot.tensors, {"format": FORMAT, **snapshot.header})


def read_state(path: Path) -> SavedState:
    """Read a file of `save_state`.

    Raises FastudaError when it is gone, damaged or something else, and UnreadableError when the system refuses it.
    """
    try:
        content, metadata = read_archive(path)
    except UnreadableError as error:
        if isinstance(error.__cause__, FileNotFoundError) and not os.path.lexists(path):
            raise FastudaError(f"{path}: no checkpoint to resume from") from error
        raise UnreadableError(
            f"{path}: this checkpoint cannot be read ({error.reason}); nothing was changed", error.reason
        ) from error
    except FastudaError as error:
        reason = str(error).removeprefix(f"{path}: ").removeprefix("damaged: ")
        raise FastudaError(f"{path}: this checkpoint cannot be read, it is damaged: {reason}") from error
    if metadata.get("format") != FORMAT:
        raise FastudaError(f"{path}: not a fastuda training checkpoint (format {metadata.get('format')!r})")
    if "sha256" not in metadata:
        raise FastudaError(f"{path}: this checkpoint is damaged: its SHA-256 is missing")
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    try:
        header = _Header.model_validate(metadata)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "its header"
        raise FastudaError(f"{path}: not a checkpoint that a run wrote: {where}: {problem['msg']}") from error
    return SavedState(path, tensors, header.stage, header.iteration, header.notes, header.window)


def require_fit(
    saved: SavedState, model: nn.Module, *, remembered: Collection[str] = (), path: Path | None = None
) -> None:
    """FastudaError, in one line, unless a saved stage is of a network like `model` and holds all that is `remembered`.

    That is what an optimiser remembers of a parameter, by torch's names.
    """
    path = path or saved.path
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    wanted = {f"{prefix}{key}": shape for prefix in _MODELS for key, shape in shapes.items()}
    found = {key: list(value.shape) for key, value in saved.tensors.items() if key.startswith(_MODELS)}
    lines = [
        f"{on_one_line(key, 200)} is {found.get(key, 'missing')}, not {wanted.get(key, 'there')}"
        for key in (*wanted, *(found.keys() - wanted.keys()))
        if found.get(key) != wanted.get(key)
    ]
    if lines:
        more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        raise FastudaError(f"{path}: this checkpoint is of another network: {'; '.join(lines[:_SHOWN])}{more}")
    for kind in remembered:
        if not any(key.startswith(optimizer_prefix(kind)) for key in saved.tensors):
            what = "momenta" if kind == "momentum_buffer" else kind
            raise FastudaError(f"{path}: this checkpoint is of another optimiser: it holds no {what}")


_MODELS = ("student.", "average.")


def restore_state(saved: SavedState, state: TrainingState, path: Path | None = None) -> None:
    """Put a saved stage into a freshly begun one, in place; raises FastudaError when the networks differ."""
    path = path or saved.path
    require_fit(saved, state.student, path=path)
    for prefix, model in zip(_MODELS, (state.student, state.averaged), strict=True):
        own = {key.removeprefix(prefix): value for key, value in saved.tensors.items() if key.startswith(prefix)}
        model.load_state_dict(own)
    with torch.no_grad():
        for name, parameter in state.student.named_parameters():
            for kind, buffer in state_of(state.optimizer, parameter).items():
                key = f"{optimizer_prefix(kind)}{name}"
                kept = saved.tensors.get(key)
                if kept is None or kept.shape != buffer.shape:
                    found = "missing" if kept is None else f"of shape {list(kept.shape)}"
                    raise FastudaError(
                        f"{path}: this checkpoint is of another optimiser: {key} is {found}, not {list(buffer.shape)}"
                    )
                buffer.copy_(kept)
        state.iteration.fill_(saved.iteration)
    state.follow_weights()
    if state.scaler.is_enabled() and "scaler.scale" in saved.tensors:
        known = {name: float(saved.tensors[f"scaler.{name}"]) for name in SCALER_FIELDS}
        state.scaler.load_state_dict(
            {**state.scaler.state_dict(), **known, "_growth_tracker": int(known["_growth_tracker"])}
        )
