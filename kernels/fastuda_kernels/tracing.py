"""What torch's compiler asks of every launch that it traces, answered once for launches of one kind."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_QUESTIONS = ("identify_accessed_tensors", "identify_mutated_tensors")
"""What a kernel reads and writes: the name in newer and in older releases of torch."""


@contextmanager
def launches_known_by_kind() -> Iterator[None]:
    """While entered, torch compiles a kernel once for each kind of its launches to see what it writes to.

    By itself torch does so three or four times for every launch in a graph, some 30 ms each: minutes for a
    network with a few hundred BatchNorms. Launches are of one kind when kernel, types of tensors and all other
    arguments are the same. Where a release of torch has no such function, nothing changes.
    """
    try:
        asked_in: Any = importlib.import_module("torch._higher_order_ops.triton_kernel_wrap")
    except ImportError:
        asked_in = None
    name = next((one for one in _QUESTIONS if hasattr(asked_in, one)), None)
    if name is None:
        yield
        return
    asked = getattr(asked_in, name)
    setattr(asked_in, name, _remembering(asked))
    try:
        yield
    finally:
        setattr(asked_in, name, asked)


def _remembering(asked: Callable[..., Any]) -> Callable[..., Any]:
    known: dict[Any, tuple[Any, Any]] = {}

    def answer(kernel: Any, arguments: dict[str, Any], *rest: Any) -> Any:
        if any(rest):  # descriptors of memory that the key does not know
            return asked(kernel, arguments, *rest)
        key = (id(kernel), *((name, _kind(value)) for name, value in sorted(arguments.items())))
        if key not in known:
            known[key] = (kernel, asked(kernel, arguments, *rest))  # the kernel too, lest its id be given away
        return known[key][1]

    return answer


def _kind(value: Any) -> str:
    """A number as it is, of a tensor its class and type."""
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    dtype = value.get_dtype() if hasattr(value, "get_dtype") else getattr(value, "dtype", "")
    return f"{type(value).__name__} {dtype}"
