"""One pass over a packed split, labels decoded ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastuda.data.loading.batch import EvaluationBatch
from fastuda.data.loading.failures import Failures
from fastuda.data.loading.pipeline import device_id_of, evaluation_graph, run_pipeline, undecodable
from fastuda.data.packing.pack import Packed
from fastuda.data.reading.faults import SampleError
from fastuda.errors import FastudaError

_LABELS_AHEAD = 2
"""Batches whose labels are decoded before they are asked for."""


class EvaluationLoader:
    """One pass over a packed split, in order, in batches on `device`; the last batch may be smaller.

    `share` is (rank, number of ranks): that rank's batches of those that are dealt out in turn, each as it is without
    ranks. `labelled=False` leaves labels out; `limit` takes that many images, spread evenly over the split. A sample
    that can be neither read nor made anew ends it with a FastudaError that names it: scores of other images are other
    scores. Where they are not for scoring, `failures` says what may stand for it.
    """

    def __init__(
        self,
        packed: Packed,
        batch_size: int,
        num_threads: int,
        device: torch.device,
        *,
        labelled: bool = True,
        limit: int | None = None,
        failures: Failures | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.folder = packed.folder
        self._packed = packed
        self.batch_size = batch_size
        self._num_threads = num_threads
        self._device = device
        self._labelled = labelled
        self._failures = failures
        if failures is not None and labelled:
            raise ValueError("labelled images are scored, and nothing may stand for them")
        count = min(limit or len(packed), len(packed))
        samples = [i * len(packed) // count for i in range(count)]
        batches = [samples[start : start + batch_size] for start in range(0, count, batch_size)]
        self._batches = batches[share[0] :: share[1]]

    def __len__(self) -> int:
        """Number of images, of this share."""
        return sum(len(batch) for batch in self._batches)

    def __iter__(self) -> Iterator[EvaluationBatch]:
        if not self._batches:  # there are fewer batches than ranks
            return
        feed, pipeline = self._begin(0)
        with ThreadPoolExecutor(self._num_threads) as pool:
            labels = self._labels(pool)
            for place in range(len(self._batches)):
                while True:
                    try:
                        (images,) = run_pipeline(pipeline, self._device)
                        break
                    except RuntimeError:
                        in_flight = {index for samples in feed.fed.values() for index in samples}
                        refused = undecodable(self._packed, in_flight, labels=False, device=self._device)
                        if not refused:
                            raise
                        for index, error in refused.items():
                            _replace(self._packed, index, error, self._failures)
                        feed, pipeline = self._begin(place)  # one that has raised is of no more use
                names = [self._packed.names[i] for i in feed.fed.pop(place)]
                yield EvaluationBatch(images, next(labels), names)

    def _begin(self, place: int) -> tuple[_EvaluationFeed, Any]:
        """A pipeline from the batch at `place` on, and what feeds it."""
        feed = _EvaluationFeed(self._packed, self._batches, place, self._failures)
        pipeline = evaluation_graph(
            batch_size=self.batch_size,
            num_threads=self._num_threads,
            device_id=device_id_of(self._device),
            exec_dynamic=True,
            prefetch_queue_depth=2,
            feed=feed,
            packed_format=self._packed.format,
            packed_size=self._packed.size,
        )
        pipeline.build()
        return feed, pipeline

    def _labels(self, pool: ThreadPoolExecutor) -> Iterator[list[Tensor]]:
        """Each batch's labels on the device; the pool decodes those of the next batches meanwhile."""

        def read(index: int) -> Tensor:
            try:
                return torch.from_numpy(self._packed.label_array(index).copy())
            except SampleError as error:
                raise _named(self._packed, index, error) from error

        under_way: deque[list[Future[Tensor]]] = deque()
        for batch in self._batches:
            under_way.append([pool.submit(read, i) for i in batch] if self._labelled else [])
            if len(under_way) > _LABELS_AHEAD:
                yield self._sent(under_way.popleft())
        while under_way:
            yield self._sent(under_way.popleft())

    def _sent(self, labels: list[Future[Tensor]]) -> list[Tensor]:
        decoded = [label.result() for label in labels]
        if self._device.type == "cpu":
            return decoded
        return [label.pin_memory().to(self._device, non_blocking=True) for label in decoded]


@dataclass(frozen=True)
class _EvaluationFeed:
    """Files of each batch, for DALI, from the batch at `start` on."""

    packed: Packed
    batches: list[list[int]]
    start: int
    failures: Failures | None
    fed: dict[int, list[int]] = field(default_factory=dict)
    """Batch → the samples that were read for it, until it is handed over."""

    def __call__(self, index: int) -> tuple[list[NDArray[np.uint8]]]:
        # DALI prefetches past the end; those batches repeat the last one and are never read.
        place = min(self.start + index, len(self.batches) - 1)
        read = [self._read(meant) for meant in self.batches[place]]
        self.fed[place] = [sample for sample, _ in read]
        return ([file for _, file in read],)

    def _read(self, meant: int) -> tuple[int, NDArray[np.uint8]]:
        while True:
            sample = meant if self.failures is None else self.failures.substitute(meant)
            try:
                return sample, self.packed.image_bytes(sample)
            except SampleError as error:
                _replace(self.packed, sample, error, self.failures)


def _replace(packed: Packed, index: int, error: SampleError, failures: Failures | None) -> None:
    """Have a failed sample replaced; FastudaError naming it where none may be."""
    if failures is None:
        raise _named(packed, index, error) from error
    failures.add(index, error)


def _named(packed: Packed, index: int, error: SampleError) -> FastudaError:
    return FastudaError(f"sample {packed.names[index]}, which is to be evaluated: {error}")
