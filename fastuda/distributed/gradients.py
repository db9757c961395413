"""Gradients and statistics averaged over the ranks, in buckets, where the optimiser steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fastuda.distributed.ranks import Ranks

BUCKET_BYTES = 2**25
"""Of a bucket: long enough for the full speed of a link, short enough that little memory is held twice."""


@dataclass
class _Bucket:
    """Parts of tensors on their way, one behind the other, and the tensors that they go back to."""

    flat: Tensor
    parts: list[Tensor]
    work: Any = None

    def finish(self, size: int) -> None:
        self.work.wait()
        for part, mean in zip(self.parts, torch.split(self.flat, [one.numel() for one in self.parts]), strict=True):
            part.copy_(mean.view(part.shape))
            part.div_(size)


class Averaging:
    """Means over the ranks, in place, of tensors that lie on the same places of every rank.

    `begin` sends them on their way, `end` has them: between the two the device may do something else. Sums are made in
    the tensors' own type, or in `precision`. Every rank gets the same bits.
    """

    def __init__(self, ranks: Ranks, precision: torch.dtype | None = None) -> None:
        self._ranks = ranks
        self._precision = precision
        self._under_way: list[_Bucket] = []

    @torch.no_grad()
    def begin(self, tensors: Sequence[Tensor]) -> None:
        """Begin to average; nobody may write to them, or read them, before `end`."""
        for parts in _filled(tensors):
            dtype = self._precision or parts[0].dtype
            flat = torch.cat([part.reshape(-1).to(dtype) for part in parts])
            bucket = _Bucket(flat, parts)
            bucket.work = dist.all_reduce(flat, async_op=True)
            self._under_way.append(bucket)

    @torch.no_grad()
    def end(self) -> None:
        """Return once all that was begun is averaged, as far as the current stream can tell."""
        for bucket in self._under_way:
            bucket.finish(self._ranks.size)
        self._under_way = []

    def forget(self) -> None:
        """Leave what an interrupted iteration had begun."""
        self._under_way = []


def _filled(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Buckets of neighbours of one type; a tensor larger than a bucket is one of several, by slices of its memory."""
    bucket: list[Tensor] = []
    for tensor in (piece for whole in tensors for piece in _pieces(whole)):
        full = sum(one.nbytes for one in bucket) + tensor.nbytes > BUCKET_BYTES
        if bucket and (full or bucket[0].dtype != tensor.dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def _pieces(tensor: Tensor) -> list[Tensor]:
    if tensor.nbytes <= BUCKET_BYTES or tensor.dim() == 0:
        return [tensor]
    return list(torch.split(tensor, max(1, len(tensor) * BUCKET_BYTES // tensor.nbytes)))
