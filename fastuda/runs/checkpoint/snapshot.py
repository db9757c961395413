"""A stage's state as of one moment, copied off the device so that training can go on while it is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastuda.method.optimizer import state_of
from fastuda.method.state import TrainingState
from fastuda.runs.checkpoint.notes import Notes, StageName

SCALER_FIELDS = ("scale", "_growth_tracker")
WINDOW = "window."
_AVERAGE = "average."


@dataclass(frozen=True)
class Snapshot:
    """Tensors on the host under their names in the file, and the header's text."""

    stage: StageName
    iteration: int
    tensors: dict[str, Tensor]
    header: dict[str, str]
    first_nonfinite: Tensor
    """int64 scalar on the host: the first iteration whose loss was not finite, −1 without one."""
    copied: Any = None
    """A CUDA event; until it has passed, the tensors are still being copied."""

    def wait(self) -> None:
        """Return once every tensor is there."""
        if self.copied is not None:
            self.copied.synchronize()

    def average(self) -> dict[str, Tensor]:
        """The averaged model's tensors, under the model's own names."""
        return averaged(self.tensors)

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def averaged(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of a state's tensors that are the averaged model's, under the model's own names."""
    return {key.removeprefix(_AVERAGE): value for key, value in tensors.items() if key.startswith(_AVERAGE)}


def optimizer_prefix(kind: str) -> str:
    """Before the parameters' names in a file, for what torch's optimisers call `kind`."""
    return "momentum." if kind == "momentum_buffer" else f"optimizer.{kind}."


def take_snapshot(
    state: TrainingState,
    stage: StageName,
    iteration: int,
    notes: Notes,
    *,
    window: tuple[int, Mapping[str, Tensor]] = (0, {}),
    onto: Snapshot | None = None,
) -> Snapshot:
    """Copy everything that a stage needs to go on as if it had never stopped, `iteration` iterations of it being done.

    All randomness follows from the seed and the iteration's number, so there is no generator to save. `window` are the
    iterations since the log's last row and their losses summed. On a GPU the copies are only begun (`Snapshot.wait`),
    in the order of the current stream, into the memory of `onto`, an earlier snapshot that nobody needs any more.
    """
    tensors = {f"student.{name}": value for name, value in state.student.state_dict().items()}
    tensors |= {f"{_AVERAGE}{name}": value for name, value in state.averaged.state_dict().items()}
    for name, parameter in state.student.named_parameters():
        remembered = state_of(state.optimizer, parameter)
        tensors |= {f"{optimizer_prefix(kind)}{name}": value for kind, value in remembered.items()}
    for name in SCALER_FIELDS if state.scaler.is_enabled() else ():
        tensors[f"scaler.{name}"] = torch.tensor(float(state.scaler.state_dict()[name]))
    count, sums = window
    tensors |= {f"{WINDOW}{name}": value for name, value in sums.items()}
    header = {
        "stage": stage,
        "iteration": str(iteration),
        "window": str(count),
        "notes": json.dumps(notes.model_dump()),  # pydantic's own JSON has no names that are no UTF-8
    }
    known = {} if onto is None else onto.tensors
    copies = {name: _copy(value, known.get(name)) for name, value in tensors.items()}
    nonfinite = _copy(state.first_nonfinite, None if onto is None else onto.first_nonfinite)
    copied = None
    if state.iteration.is_cuda:
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record()
    return Snapshot(stage, iteration, copies, header, nonfinite, copied)


def _copy(tensor: Tensor, onto: Tensor | None) -> Tensor:
    """A contiguous copy on the host; one from a GPU is under way when this returns."""
    if onto is None or onto.shape != tensor.shape or onto.dtype != tensor.dtype:
        onto = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return onto.copy_(tensor.detach(), non_blocking=True)
