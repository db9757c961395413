"""A whole training iteration as one CUDA graph: static inputs, a warm-up without a trace, capture, replay."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastuda.data.batch import DomainBatch
from fastuda.method.losses import Losses
from fastuda.method.state import TrainingState

WARM_UPS = 3
"""Runs before a capture: libraries make their plans and workspaces, cuDNN times its convolutions."""


class CaptureError(RuntimeError):
    """The iteration could not be captured, or its graph does not do what the iteration does."""


class CapturedIteration:
    """A step recorded once and replayed with new batches; the losses it returns are overwritten by the next call."""

    def __init__(self, step: Callable[..., Losses], state: TrainingState, batches: tuple[DomainBatch, ...]) -> None:
        """Warm up and capture `step(*batches)`, leaving `state` untouched. Raises CaptureError with the reason."""
        self._state = state
        self._inputs = tuple(batch.map(torch.clone) for batch in batches)
        self._graph = torch.cuda.CUDAGraph()
        self._proved = False
        stream = torch.cuda.current_stream()
        try:
            with state.rehearsal():
                _warm_up(lambda: step(*self._inputs), stream)
            # DALI's threads go on calling CUDA meanwhile; only this thread's calls must be fit for a graph.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._losses = step(*self._inputs)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # whatever an operation that is not fit for a graph raises
            torch.cuda.set_stream(stream)  # a capture that fails leaves its own behind
            torch.cuda.synchronize()
            state.optimizer.zero_grad()
            raise CaptureError(f"{type(error).__name__}: {error}") from error

    def __call__(self, *batches: DomainBatch) -> Losses:
        """Train one iteration; the batches have the shapes of those at the capture."""
        for static, batch in zip(self._inputs, batches, strict=True):
            _copy_into(static, batch)
        before = None if self._proved else int(self._state.iteration)
        self._graph.replay()
        if before is not None:
            # The one host sync of the graph's life: a graph that captured nothing would replay in silence.
            if int(self._state.iteration) != before + 1:
                raise CaptureError("a replay did not train an iteration: the capture holds nothing")
            self._proved = True
        return self._losses


def _warm_up(step: Callable[[], object], stream: torch.cuda.Stream) -> None:
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(stream)
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            step()
    stream.wait_stream(side)


def _copy_into(static: DomainBatch, batch: DomainBatch) -> None:
    for place, field in zip(static, batch, strict=True):
        if isinstance(place, Tensor) and isinstance(field, Tensor):
            if place.shape != field.shape:
                raise CaptureError(f"a batch of {list(field.shape)} for a graph of {list(place.shape)}")
            place.copy_(field, non_blocking=True)
