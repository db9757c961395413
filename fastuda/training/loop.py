"""A stage's iterations, fed: batches of both domains loaded, trained on, and the time waited for them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import torch

from fastuda.data.datasets import Datasets, SplitName
from fastuda.data.loading.failures import numbers
from fastuda.data.loading.training_loader import TrainingLoader
from fastuda.memory.estimate import TrainingWork
from fastuda.memory.out_of_memory import memory_told
from fastuda.method.state import TrainingState
from fastuda.method.term import Losses
from fastuda.model.passes import Passes
from fastuda.recipe import Recipe
from fastuda.runtime.fast_path import FastPath
from fastuda.training.iteration import Iteration, Way

_AHEAD = 2
"""Iterations that the host may be ahead of a GPU: enough to keep it busy, few enough to hold few batches."""


class Loop:
    """Loads and trains one iteration of `work` a call, from where `state` stands.

    `failed` are the samples of each split, by name, that had failed before (`data.on_error`).

    On a GPU nothing here waits for the device but for an iteration that lies two back.
    """

    def __init__(
        self,
        state: TrainingState,
        data: Datasets,
        recipe: Recipe,
        passes: Passes,
        fast: FastPath,
        work: TrainingWork,
        *,
        failed: Mapping[SplitName, Mapping[str, str]] | None = None,
    ) -> None:
        device, start = state.iteration.device, int(state.iteration)
        self._loaders = {
            split: TrainingLoader(
                pack,
                domain,
                recipe,
                device,
                start_iteration=start,
                rank=state.ranks.rank,
                num_ranks=state.ranks.size,
                failed=numbers(pack, (failed or {}).get(split, {})),
                adapts=work == "adaptation",
            )
            for domain, (split, pack) in data.trained_on(adapts=work == "adaptation").items()
        }
        self._iteration = Iteration(state, recipe, passes, fast, work)
        self._work, self._recipe = work, recipe
        self._device, self._on_gpu = device, device.type == "cuda"
        self._ends: deque[Any] = deque()
        self._waited = 0.0

    @property
    def way(self) -> Way:
        """How iterations run; final after the first one."""
        return self._iteration.way

    @property
    def failed(self) -> dict[SplitName, dict[str, str]]:
        """Samples that failed so far, each with the reason, by split."""
        return {split: loader.failures.reasons for split, loader in self._loaders.items()}

    def learn_failed(self, failed: Mapping[SplitName, Mapping[str, str]]) -> None:
        """Replace samples that failed on other ranks, too."""
        for split, loader in self._loaders.items():
            loader.failures.learn(numbers(loader.packed, failed.get(split, {})))

    def __call__(self) -> Losses:
        """Losses of the next iteration, on the device; the next call may overwrite them."""
        began = time.perf_counter()
        with memory_told(self._work, self._recipe, self._device):
            batches = [next(loader) for loader in self._loaders.values()]
        self._waited += time.perf_counter() - began
        losses = self._iteration(*batches)
        if self._on_gpu:
            self._keep_close()
        return losses

    def take_waited(self) -> float:
        """Seconds that the host waited for batches since this was last asked."""
        waited, self._waited = self._waited, 0.0
        return waited

    def _keep_close(self) -> None:
        end = torch.cuda.Event()  # type: ignore[no-untyped-call]
        end.record()
        self._ends.append(end)
        if len(self._ends) > _AHEAD:
            self._ends.popleft().synchronize()
