"""Checkpoints: a stage's whole state in one safetensors file, or a model alone with its recipe (protocol row 4)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fastuda.errors import FastudaError
from fastuda.method.state import TrainingState
from fastuda.model.deeplab import DeepLabV2
from fastuda.model.weights import describe, save_weights
from fastuda.recipe import Recipe
from fastuda.recipe_file import dump_recipe

FORMAT = "fastuda-state-1"
_SCALER_FIELDS = ("scale", "_growth_tracker")


@dataclass(frozen=True)
class SavedState:
    """A training checkpoint as read from disk."""

    tensors: dict[str, Tensor]
    stage: str
    iteration: int
    notes: dict[str, Any]
    """What the run itself wants to remember: scores so far, seconds spent."""


def save_model(path: Path, model: DeepLabV2, recipe: Recipe, notes: dict[str, Any]) -> None:
    """A model alone, readable by `fastuda eval`, `predict` and `--init`; atomic. Raises FastudaError."""
    metadata = {**describe(model, recipe.model.input), "recipe": dump_recipe(recipe), "notes": json.dumps(notes)}
    save_weights(path, model.state_dict(), metadata)


def save_state(path: Path, state: TrainingState, stage: str, notes: dict[str, Any]) -> None:
    """Everything a stage needs to go on as if it had never stopped; atomic. Raises FastudaError.

    All randomness follows from the seed and the iteration's number, so there is no generator to save.
    """
    tensors = {f"student.{name}": value for name, value in state.student.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in state.averaged.state_dict().items()}
    for name, parameter in state.student.named_parameters():
        momentum = state.optimizer.state.get(parameter, {}).get("momentum_buffer")
        if momentum is not None:
            tensors[f"momentum.{name}"] = momentum
    for name in _SCALER_FIELDS if state.scaler.is_enabled() else ():
        tensors[f"scaler.{name}"] = torch.tensor(float(state.scaler.state_dict()[name]))
    iteration = int(state.iteration)
    header = {"format": FORMAT, "stage": stage, "iteration": str(iteration), "notes": json.dumps(notes)}
    save_weights(path, tensors, header)


def read_state(path: Path) -> SavedState:
    """Read a file of `save_state`; raises FastudaError when it is missing, damaged or something else."""
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise FastudaError(
            f"{path}: no checkpoint to resume from; delete the run's folder and start it without --resume"
        ) from None
    except (SafetensorError, OSError) as error:
        raise FastudaError(f"{path}: this checkpoint cannot be read ({error}); it is damaged") from error
    if header.get("format") != FORMAT:
        raise FastudaError(f"{path}: not a fastuda training checkpoint (format {header.get('format')!r})")
    return SavedState(tensors, header["stage"], int(header["iteration"]), json.loads(header["notes"]))


def restore_state(saved: SavedState, state: TrainingState, path: Path) -> None:
    """Put a saved stage into a freshly begun one, in place; raises FastudaError when the networks differ."""
    for prefix, model in (("student.", state.student), ("average.", state.averaged)):
        own = {key.removeprefix(prefix): value for key, value in saved.tensors.items() if key.startswith(prefix)}
        try:
            model.load_state_dict(own)
        except RuntimeError as error:
            raise FastudaError(f"{path}: this checkpoint is of another network: {error}") from error
    with torch.no_grad():
        for name, parameter in state.student.named_parameters():
            momentum = saved.tensors.get(f"momentum.{name}")
            if momentum is not None:
                state.optimizer.state[parameter]["momentum_buffer"].copy_(momentum)
        state.iteration.fill_(saved.iteration)
    state.follow_weights()
    if state.scaler.is_enabled() and "scaler.scale" in saved.tensors:
        known = {name: float(saved.tensors[f"scaler.{name}"]) for name in _SCALER_FIELDS}
        state.scaler.load_state_dict(
            {**state.scaler.state_dict(), **known, "_growth_tracker": int(known["_growth_tracker"])}
        )
