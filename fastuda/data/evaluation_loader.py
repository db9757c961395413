"""One pass over a packed split, labels decoded ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastuda.data.batch import EvaluationBatch
from fastuda.data.pack import Packed
from fastuda.data.pipeline import device_id_of, evaluation_graph, run_pipeline

_LABELS_AHEAD = 2
"""Batches whose labels are decoded before they are asked for."""


class EvaluationLoader:
    """One pass over a packed split, in order, in batches on `device`; the last batch may be smaller.

    `labelled=False` leaves labels out; `limit` takes that many images, spread evenly over the split.
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
    ) -> None:
        self.folder = packed.folder
        self._packed = packed
        self._batch_size = batch_size
        self._num_threads = num_threads
        self._device = device
        self._labelled = labelled
        count = min(limit or len(packed), len(packed))
        samples = [i * len(packed) // count for i in range(count)]
        self._batches = [samples[start : start + batch_size] for start in range(0, count, batch_size)]

    def __len__(self) -> int:
        """Number of images."""
        return sum(len(batch) for batch in self._batches)

    def __iter__(self) -> Iterator[EvaluationBatch]:
        pipeline = evaluation_graph(
            batch_size=self._batch_size,
            num_threads=self._num_threads,
            device_id=device_id_of(self._device),
            exec_dynamic=True,
            prefetch_queue_depth=2,
            feed=self._feed,
            packed_format=self._packed.format,
            packed_size=self._packed.size,
        )
        pipeline.build()
        with ThreadPoolExecutor(self._num_threads) as pool:
            labels = self._labels(pool)
            for batch in self._batches:
                (images,) = run_pipeline(pipeline, self._device)
                yield EvaluationBatch(images, next(labels), [self._packed.names[i] for i in batch])

    def _labels(self, pool: ThreadPoolExecutor) -> Iterator[list[Tensor]]:
        """Each batch's labels on the device; the pool decodes those of the next batches meanwhile."""

        def read(index: int) -> Tensor:
            return torch.from_numpy(self._packed.label_array(index).copy())

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

    def _feed(self, index: int) -> tuple[list[NDArray[np.uint8]]]:
        # DALI prefetches past the end; those batches repeat the last one and are never read.
        batch = self._batches[min(index, len(self._batches) - 1)]
        return ([self._packed.image_bytes(i) for i in batch],)
