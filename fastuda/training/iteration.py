"""One training iteration run the fastest way that the recipe and the machine allow: eager, compiled, a CUDA graph."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace
from functools import partial
from typing import Literal

import torch

from fastuda.data.loading.batch import DomainBatch
from fastuda.memory.estimate import TrainingWork
from fastuda.memory.out_of_memory import is_out_of_memory, memory_told
from fastuda.method.draws import seed_of
from fastuda.method.state import TrainingState
from fastuda.method.step import adaptation_step, warmup_step
from fastuda.method.term import Losses
from fastuda.model.passes import Passes
from fastuda.recipe import Recipe
from fastuda.runtime.fast_path import FastPath
from fastuda.training.cuda_graph import CapturedIteration, CaptureError, capture
from fastuda_kernels.tracing import launches_known_by_kind

log = logging.getLogger(__name__)

Way = Literal["eager", "compiled", "eager graph", "compiled graph"]


class Iteration:
    """Trains one iteration of `work` a call: `iteration(source)` in the warm-up, `iteration(source, target)` after it.

    The first call compiles and captures what the fast path asks for, leaving no trace in the state. What
    cannot be had is said in the log with its reason, and the next slower way is taken: a graph's
    iteration is then launched, a compiled one runs eagerly. `way` tells which it became.
    """

    def __init__(
        self,
        state: TrainingState,
        recipe: Recipe,
        passes: Passes,
        fast: FastPath,
        work: TrainingWork = "adaptation",
    ) -> None:
        self._state = state
        self._work = work
        self._recipe = recipe
        self._passes = replace(passes, compiled=fast.compiled)
        self._fast = fast
        self._graph: CapturedIteration | None = None
        self._prepared = False
        self._number = 0

    @property
    def way(self) -> Way:
        """How iterations run; final after the first one."""
        if self._graph is not None:
            return "compiled graph" if self._passes.compiled else "eager graph"
        return "compiled" if self._passes.compiled else "eager"

    def __call__(self, *batches: DomainBatch) -> Losses:
        """Train on one batch a domain; returns detached losses on the device, which the next call may overwrite.

        Raises FastudaError, with what to lower, when memory runs out.
        """
        with memory_told(self._work, self._recipe, self._state.iteration.device):
            if not self._prepared:
                self._prepare(batches)
                self._number = int(self._state.iteration)
            self._seed_network()
            losses = self._step(*batches) if self._graph is None else self._replay(self._graph, batches)
            self._number += 1
            return losses

    def _seed_network(self) -> None:
        """Have dropout draw by the iteration's number, so that a run that goes on draws as one that never stopped.

        Each rank draws for itself. A graph reads the generator's seed at each replay.
        """
        rank = self._state.ranks.rank
        drawer = f"{self._work} of rank {rank}" if rank else self._work
        torch.manual_seed(seed_of(self._recipe.seed, drawer, self._number))

    def _replay(self, graph: CapturedIteration, batches: tuple[DomainBatch, ...]) -> Losses:
        try:
            return graph(*batches)
        except CaptureError as error:
            self._do_without_graph(_reason(error))
            self._seed_network()
            return self._step(*batches)

    def _do_without_graph(self, reason: str) -> None:
        self._graph = None
        log.warning("no CUDA graph, so iterations are launched (%s): %s", self.way, reason)

    def _step(self, *batches: DomainBatch) -> Losses:
        step = partial(adaptation_step if self._work == "adaptation" else warmup_step, self._state)
        return step(*batches, self._recipe, self._passes)

    def _prepare(self, batches: tuple[DomainBatch, ...]) -> None:
        with warnings.catch_warnings(), launches_known_by_kind():
            # What compiler and capture provoke inside torch is no news to who trains, and differs from build to
            # build: where warnings are errors, a new one must not cost the fast path.
            warnings.simplefilter("ignore")
            if self._fast.compiled:
                self._compile(batches)
            if self._fast.graphed:
                self._capture(batches)
        self._prepared = True

    def _compile(self, batches: tuple[DomainBatch, ...]) -> None:
        log.info("compiling the network and the losses; this takes a minute or so")
        failed = None
        try:
            with self._state.rehearsal(), self._state.silent():
                self._step(*batches)
        except Exception as error:  # whatever a missing or confused compiler raises
            if is_out_of_memory(error):
                raise
            failed = _reason(error)
        failed = self._state.ranks.agreed(failed)  # ranks go one way, or they would wait for one another for ever
        if failed is not None:
            self._passes = replace(self._passes, compiled=False)
            log.warning("torch.compile failed, so iterations run eagerly: %s", failed)

    def _capture(self, batches: tuple[DomainBatch, ...]) -> None:
        failed = None
        try:
            self._graph = capture(self._step, self._state, batches)
        except CaptureError as error:
            failed = _reason(error)
        failed = self._state.ranks.agreed(failed)
        if failed is not None:
            self._do_without_graph(failed)


def _reason(error: Exception) -> str:
    """The error's kind and the first line that says something."""
    error = getattr(error, "inner_exception", error)  # of a compiler's wrapper
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"
