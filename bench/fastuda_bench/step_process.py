"""One window of a recipe's own step, timed in a process of its own: `python -m fastuda_bench.step_process ORDER`.

ORDER is JSON: recipe, settings, device, iterations, and the file for what was found. Determinism is chosen before the
GPU's libraries are loaded, and stays for as long as a process does.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from fastuda.data.loading.made import made_batches
from fastuda.model.passes import Passes
from fastuda.recipe import Recipe
from fastuda.recipe.file import load_recipe
from fastuda.runtime.device import choose_device
from fastuda.runtime.fast_path import FastPath
from fastuda.runtime.switches import configure
from fastuda.training.iteration import Iteration
from fastuda_bench.begun import begun
from fastuda_bench.results import Row, write_json

_WARM_UP = 3
"""Iterations before the window; the first one compiles and captures."""


def window(recipe: Recipe, device: torch.device, iterations: int) -> Row:
    """Milliseconds an iteration over a window of adaptation iterations on noise, and a digest of what they left.

    Weights, batches and their order follow from the recipe, so that two processes of one setting do the same work.
    """
    configure(recipe.runtime, device)
    fast, passes = FastPath.of(recipe.runtime, device), Passes.of(recipe, device)
    state = begun(recipe, fast, device)
    batches, iteration = made_batches(recipe, device), Iteration(state, recipe, passes, fast)
    for _ in range(_WARM_UP):
        iteration(*batches)
    _wait(device)
    began = time.perf_counter()
    for _ in range(iterations):
        iteration(*batches)
    _wait(device)
    seconds = time.perf_counter() - began
    return {
        "ms": 1000 * seconds / iterations,
        "way": iteration.way,
        "precision": str(fast.amp or torch.float32).removeprefix("torch."),
        "digest": _digest(state.tensors()),
    }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _digest(tensors: Iterable[Tensor]) -> str:
    """SHA-256 over the bits of weights, averages, momenta and counters."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def main(order: str) -> None:
    """Do what an order says, and write its file."""
    asked = json.loads(order)
    found = window(load_recipe(asked["recipe"], asked["settings"]), choose_device(asked["device"]), asked["iterations"])
    write_json(Path(asked["file"]), found)


if __name__ == "__main__":
    main(sys.argv[1])
