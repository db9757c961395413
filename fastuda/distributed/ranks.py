"""Who a process is among those that work together, and how they wait for, hear and agree with one another."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from fastuda.distributed.lost import loss_told
from fastuda.distributed.place import Place
from fastuda.runtime.stop import StopAskedError, StoppedError

T = TypeVar("T")
Look = Callable[[], None]
_PATIENCE = timedelta(days=30)
"""A rank may wait for hours: for another one's packing, or its pictures. One that is gone is noticed by its streams."""
_LEAVING = timedelta(seconds=5)
_LOOK_SECONDS = 0.05
_BUCKET_BYTES = 2**25


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Ranks:
    """The ranks of a job as one of them sees them; alone, a process waits for nobody and agrees with itself.

    Tensors go over the default group (NCCL between GPUs, Gloo between CPUs), which an iteration's collectives use;
    all else over a group of Gloo's, so that neither ever takes the other's turn. Every rank has to make the same calls
    in the same order. Raises LostRankError where another rank is gone.
    """

    place: Place = field(default_factory=Place)
    look: Look = _nothing
    """Called several times a second while others are waited for, and may raise."""
    _words: Any = None
    """The group of Gloo's."""

    @property
    def rank(self) -> int:
        """Of this process, from 0 on."""
        return self.place.rank

    @property
    def size(self) -> int:
        """Ranks in all."""
        return self.place.size

    @property
    def first(self) -> bool:
        """Whether this rank is the one that writes."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.size == 1

    def looking(self, look: Look) -> Ranks:
        """The same, calling `look` while it waits."""
        return replace(self, look=look)

    def wait(self) -> None:
        """Return once every rank has called this."""
        if not self.alone:
            self._await(lambda: dist.barrier(self._words, async_op=True))

    @contextmanager
    def machine_first(self) -> Iterator[None]:
        """What is done while entered is done by the first rank of each machine, and then by its others."""
        if self.place.local_rank > 0:
            self.wait()
        yield
        if self.place.local_rank == 0:
            self.wait()

    def shared(self, make: Callable[[], T]) -> T:
        """What the first rank makes of it, on every rank; the others wait. Pickled, so it is of the job's own."""
        if self.alone:
            return make()
        made = [make()] if self.first else [None]
        # Waited for by looking, and only then received: the length comes first, and receiving blocks.
        self.wait()
        with loss_told():
            dist.broadcast_object_list(made, src=0, group=self._words)
        return made[0]  # type: ignore[return-value]

    def gathered(self, own: T) -> list[T]:
        """What every rank gives, in their order."""
        if self.alone:
            return [own]
        found: list[Any] = [None] * self.size
        self.wait()
        with loss_told():
            dist.all_gather_object(found, own, group=self._words)
        return found

    def agreed(self, own: str | None) -> str | None:
        """The first rank's word that has one, which is then everybody's: why to stop, what failed; or None."""
        return next((word for word in self.gathered(own) if word is not None), None)

    def asks(self, own: bool) -> Asked:
        """Begin to ask whether any rank says yes, without waiting for the answer."""
        if self.alone:
            return Asked(torch.tensor(own))
        flag = torch.tensor(own).to(torch.int32)
        with loss_told():
            return Asked(flag, dist.all_reduce(flag, dist.ReduceOp.MAX, self._words, async_op=True))

    @contextmanager
    def breaking_off(self) -> Iterator[None]:
        """What is entered on all ranks ends on all with StopAskedError where it does on one."""
        if self.alone:
            yield
            return
        asked: StopAskedError | None = None
        try:
            yield
        except StopAskedError as error:
            asked = error
        # No looking: that would raise here, and leave the others without an answer.
        reason = self.looking(_nothing).agreed(None if asked is None else str(asked))
        if reason is not None:
            raise StopAskedError(reason) from asked

    @torch.no_grad()
    def sum_(self, *tensors: Tensor) -> None:
        """Every tensor becomes its sum over the ranks, in place: exact for whole numbers."""
        if not self.alone:
            for tensor in tensors:
                with loss_told():
                    dist.all_reduce(tensor)

    @torch.no_grad()
    def broadcast_(self, tensors: Sequence[Tensor]) -> None:
        """Every tensor becomes the first rank's, in place, however it lies in memory."""
        if self.alone:
            return
        self.wait()  # the first rank may still be reading them
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.detach().reshape(-1) for tensor in bucket])
            with loss_told():
                dist.broadcast(flat, src=0)
            for tensor, part in zip(bucket, torch.split(flat, [one.numel() for one in bucket]), strict=True):
                tensor.copy_(part.view(tensor.shape))

    def _await(self, begin: Callable[[], Any]) -> None:
        with loss_told():
            work = begin()
        while not work.is_completed():
            self.look()
            time.sleep(_LOOK_SECONDS)
        with loss_told():
            work.wait()


ALONE = Ranks()


@dataclass(frozen=True)
class Asked:
    """A question that is on its way through the ranks."""

    flag: Tensor
    work: Any = None

    def answer(self) -> bool:
        """Whether any rank said yes; waits for those that have not said anything yet."""
        if self.work is not None:
            with loss_told():
                self.work.wait()
        return bool(self.flag)


@contextmanager
def joined(device: torch.device, place: Place | None = None) -> Iterator[Ranks]:
    """The ranks that torchrun has started this process as one of, its groups made; without torchrun, alone.

    Groups that the process has already are used and stay. `place` is who the process is, if the environment does not
    say it. Raises LostRankError when others do not come, UsageError for an environment that says half of it.
    """
    place = place or Place.of_environment()
    if place.size == 1:
        yield replace(ALONE, place=place)
        return
    own = not dist.is_initialized()
    with loss_told():
        if own:
            bound = {"device_id": device} if device.type == "cuda" else {}
            dist.init_process_group("cpu:gloo,cuda:nccl" if bound else "gloo", timeout=_PATIENCE, **bound)  # type: ignore[arg-type]
        words = dist.new_group(backend="gloo", timeout=_PATIENCE)
        # The first collective makes the connections, which no graph could capture.
        dist.all_reduce(torch.zeros(1, device=device))
    try:
        yield Ranks(place, _words=words)
    except Exception as error:
        agreed = isinstance(error, StoppedError) and not isinstance(error.__cause__, StopAskedError)
        _leave(place, own, words, together=agreed)
        raise
    _leave(place, own, words, together=True)


def _leave(place: Place, own: bool, words: Any, *, together: bool) -> None:
    """Drop the groups; `together`, once no other rank is still busy with what all have done."""
    with contextlib.suppress(RuntimeError):  # of others that are gone
        if together:
            # Not by a barrier of the groups: who has passed one may be gone while others are still in it.
            store = dist.distributed_c10d._get_default_store()
            store.set(f"fastuda/{words.group_name}/{place.rank}", "done")
            store.wait([f"fastuda/{words.group_name}/{rank}" for rank in range(place.size)], _LEAVING)
        dist.destroy_process_group(None if own else words)


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one type and device, about as many as fit into a bucket."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        alike = not bucket or (bucket[0].dtype, bucket[0].device) == (tensor.dtype, tensor.device)
        if not alike or sum(one.nbytes for one in bucket) + tensor.nbytes > _BUCKET_BYTES:
            if bucket:
                yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket
