"""Whole runs of the demo, as small as they can be."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from safetensors.torch import load_file
from tiny import RUN
from torch import Tensor

import fastuda.training.iteration as iteration_module
from fastuda.recipe import Recipe
from fastuda.report.display import Display
from fastuda.runs.checkpoint.store import CheckpointStore
from fastuda.training.run import train

TINY = [*RUN, "warmup.iterations=4", "train.iterations=6", "train.evaluate_every=3", "train.log_every=2"]


def run(recipe: Recipe, path: Path, **options: Any) -> tuple[dict[str, Any], str]:
    """Results and console output of a run on the CPU."""
    out = io.StringIO()
    results = train(recipe, path, name="demo", device="cpu", display=Display(Console(file=out, width=300)), **options)
    return results, out.getvalue()


def run_killed(recipe: Recipe, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that dies in its fifth adaptation iteration, past a checkpoint, and goes on to its end."""
    calls, trains = iter(range(100)), iteration_module.adaptation_step

    def killed(*arguments: Any) -> Any:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return trains(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(iteration_module, "adaptation_step", killed)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, path)
    run(recipe, path, resume=True)


def near_the_end(finished: Any, tmp_path: Path) -> Path:
    """A copy of the finished run without its results, as it is when it was killed just before them."""
    path = tmp_path / "run"
    shutil.copytree(finished[0], path)
    (path / "results.json").unlink()
    (path / "pictures" / "comparison.png").unlink()
    return path


def saved_state(path: Path) -> dict[str, Tensor]:
    """All tensors of a run's newest checkpoint."""
    return load_file(CheckpointStore(path / "checkpoints").files()[0].path)
