"""torch.compile as this library uses it: whole functions, fixed shapes, each compiled once a process."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """The function compiled without a graph break, for the shapes it is called with; the same object every time.

    A break or a failure of the compiler raises at the call that first needs the code.
    """
    return _compiled(function)  # type: ignore[return-value]


@functools.cache
def _compiled(function: Callable[..., object]) -> Callable[..., object]:
    return torch.compile(function, fullgraph=True, dynamic=False)


def forget() -> None:
    """Drop all compiled code, as a comparison of several networks in one process needs it."""
    _compiled.cache_clear()
    torch.compiler.reset()
