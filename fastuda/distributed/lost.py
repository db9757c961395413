"""The end of a rank that lost another one, which is not the job's own failure; torchrun tells which is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastuda.distributed.place import Place
from fastuda.errors import FastudaError

_SIGNS = ("connection closed by peer", "connection reset by peer", "connection refused", "broken pipe", "gloo", "nccl")


class LostRankError(FastudaError):
    """Another rank of the job is gone, and with it what this one waits for."""


def is_loss(error: RuntimeError) -> bool:
    """Whether torch raised an error because another rank did not answer."""
    from torch.distributed import DistError  # commands know this file, and are quick to start

    return isinstance(error, DistError) or any(sign in str(error).lower() for sign in _SIGNS)


@contextmanager
def loss_told() -> Iterator[None]:
    """LostRankError for what torch raises where another rank is gone."""
    try:
        yield
    except RuntimeError as error:
        if not is_loss(error):
            raise
        raise LostRankError(
            f"{Place.of_environment().told} lost another rank, which ended before it ({str(error).splitlines()[0]})"
        ) from error
