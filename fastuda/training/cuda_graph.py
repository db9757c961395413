"""A whole training iteration as one CUDA graph: static inputs, a warm-up without a trace, capture, replay."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import torch
from torch import Tensor

from fastuda.data.loading.batch import DomainBatch
from fastuda.memory.out_of_memory import is_out_of_memory
from fastuda.method.state import TrainingState
from fastuda.method.term import Losses

WARM_UPS = 3
"""Runs before a capture: libraries make their plans and workspaces, cuDNN times its convolutions."""
_DALI_FREES_AFTER = 0.02
"""Seconds after which DALI has freed tensors that torch dropped; it does so in a thread of its own, a moment later."""


class CaptureError(RuntimeError):
    """The iteration could not be captured, or its graph does not do what the iteration does."""


class CapturedIteration:
    """A step recorded once and replayed with new batches; the losses it returns are overwritten by the next call."""

    def __init__(
        self, replay: Callable[[], object], state: TrainingState, inputs: tuple[DomainBatch, ...], losses: Losses
    ) -> None:
        """`replay` trains `state` on whatever `inputs` hold by then, and writes `losses`; `capture` makes all of it."""
        self._replay, self._state = replay, state
        self._inputs, self._losses = inputs, losses
        self._proved = False

    def __call__(self, *batches: DomainBatch) -> Losses:
        """Train one iteration; the batches have the shapes of those at the capture.

        Raises CaptureError at the first call, with the state as it was, if the graph turns out to hold nothing.
        """
        for static, batch in zip(self._inputs, batches, strict=True):
            _copy_into(static, batch)
        before = None if self._proved else int(self._state.iteration)
        self._replay()
        if before is not None:
            # The one host sync of the graph's life: a graph that captured nothing would replay in silence.
            if int(self._state.iteration) != before + 1:
                raise CaptureError("a replay did not train an iteration: the capture holds nothing")
            self._proved = True
        return self._losses


def capture(step: Callable[..., Losses], state: TrainingState, batches: tuple[DomainBatch, ...]) -> CapturedIteration:
    """Warm up and capture `step(*batches)`, leaving `state` untouched. Raises CaptureError with the reason."""
    inputs = tuple(batch.map(torch.clone) for batch in batches)
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    _settle()
    collecting = gc.isenabled()
    gc.disable()  # what is collected may free what must not be freed during a capture: an old loader's pipeline
    try:
        with state.rehearsal():
            _warm_up(lambda: step(*inputs), stream)
        # DALI's threads go on calling CUDA meanwhile; only this thread's calls must be fit for a graph. No
        # tensor of DALI's may be dropped meanwhile: freeing one ends in a wait for the whole device.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            losses = step(*inputs)
    except Exception as error:  # whatever an operation that is not fit for a graph raises
        torch.cuda.set_stream(stream)  # a capture that fails leaves its own behind
        torch.cuda.synchronize()
        state.reset_step()
        cause = _root(error)
        if is_out_of_memory(cause):
            raise cause from error
        raise CaptureError(f"{type(cause).__name__}: {cause}") from error
    finally:
        if collecting:
            gc.enable()
    return CapturedIteration(graph.replay, state, inputs, losses)


def _settle() -> None:
    """Free what waits to be freed, on the host and on the device, before there is a capture that it could disturb."""
    gc.collect()
    torch.cuda.synchronize()
    time.sleep(_DALI_FREES_AFTER)
    torch.cuda.empty_cache()  # blocks of this stream are of no use to the warm-up's


def _root(error: BaseException) -> BaseException:
    """Where it began: the end of a failed capture raises an error of its own over the one that failed it."""
    while (before := error.__cause__ or (None if error.__suppress_context__ else error.__context__)) is not None:
        error = before
    return error


def _warm_up(step: Callable[[], object], stream: torch.cuda.Stream) -> None:
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(stream)
    try:
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                step()
    finally:
        stream.wait_stream(side)  # a failure too must be over before anybody restores what it wrote


def _copy_into(static: DomainBatch, batch: DomainBatch) -> None:
    for place, field in zip(static, batch, strict=True):
        if isinstance(place, Tensor) and isinstance(field, Tensor):
            if place.shape != field.shape:
                raise ValueError(f"a batch of {list(field.shape)} for a graph of {list(place.shape)}")
            place.copy_(field, non_blocking=True)
