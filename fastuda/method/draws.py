"""Random numbers inside an iteration, from its own number: the same eager, compiled, in a CUDA graph and resumed.

Counter-based: a number is a hash of (seed, name of who draws, iteration, position), so that there is no generator to
save, no order in which drawing matters, and nothing that the host has to wait for.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor


def _signed(value: int) -> int:
    """The int64 of the same 64 bits."""
    return value - (1 << 64) if value >> 63 else value


# splitmix64 (Steele, Lea and Flood, 2014): the step between counters, and the two factors of its finalizer.
_STEP = _signed(0x9E3779B97F4A7C15)
_FACTORS = (_signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB))
_FLOAT_BITS = 24


class Draws:
    """Uniform numbers of one iteration, whose number lies on the device (int64 scalar), for one of several ranks."""

    def __init__(self, seed: int, iteration: Tensor, rank: int = 0) -> None:
        self._seed = seed
        self._iteration = iteration
        self._rank = rank

    def uniform(self, name: str, shape: Sequence[int]) -> Tensor:
        """float32 in [0, 1) of `shape`, for who draws under `name`; the same at every call within an iteration.

        Ranks that draw alike shapes of [images, …] have the parts of what one process draws for all their images.
        """
        start = _mixed(self._iteration * _STEP + _key(self._seed, name))
        count = math.prod(shape)
        counters = torch.arange(self._rank * count, (self._rank + 1) * count, device=self._iteration.device)
        bits = _mixed(counters * _STEP + start)
        numbers: Tensor = _shifted(bits, 64 - _FLOAT_BITS).float() / 2**_FLOAT_BITS
        return numbers.reshape(tuple(shape))


def seed_of(seed: int, name: str, iteration: int) -> int:
    """A seed of torch's own generators for one iteration, for who can draw from those alone: dropout in a network."""
    found: int = _key(seed, f"{name} {iteration}")
    return found


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _key(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest(), "big", signed=True)


def _mixed(values: Tensor) -> Tensor:
    """splitmix64's finalizer over int64, whose products wrap as unsigned ones do."""
    values = (values ^ _shifted(values, 30)) * _FACTORS[0]
    values = (values ^ _shifted(values, 27)) * _FACTORS[1]
    return values ^ _shifted(values, 31)


def _shifted(values: Tensor, bits: int) -> Tensor:
    """Shifted right by `bits` as unsigned."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)
