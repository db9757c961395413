"""Whole runs of the demo, as small as they can be."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

import fastuda.training.iteration as iteration_module
from fastuda.recipe import Recipe
from fastuda.report.display import Display
from fastuda.runs.checkpoint.store import CheckpointStore
from fastuda.training.run import train

TINY = [
    "demo.num_source=6",
    "demo.num_source_val=1",
    "demo.num_target=5",
    "demo.num_val=3",
    "demo.size=[64, 32]",
    "views.source_size=[64, 32]",
    "views.target_size=[64, 32]",
    "views.crop_size=[32, 32]",
    "eval.size=[64, 32]",
    "model.kind=deeplab-v2",
    "model.depth=18",
    "model.weights=random",
    "warmup.optimizer.kind=sgd",
    "train.optimizer.kind=sgd",
    "model.width=0.125",
    "warmup.iterations=4",
    "train.iterations=6",
    "train.evaluate_every=3",
    "train.log_every=2",
    "runtime.loader_threads=1",
]


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
