"""torch's question about a launch, answered once a kind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._higher_order_ops import triton_kernel_wrap

from fastuda_kernels import tracing
from fastuda_kernels.tracing import launches_known_by_kind

NAME = next(name for name in tracing._QUESTIONS if hasattr(triton_kernel_wrap, name))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of each launch that torch was asked about; each answer is a list of its own."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(triton_kernel_wrap, NAME, lambda kernel, arguments, *_: found.append(arguments) or [kernel])
    return found


def ask(kernel: object, *rest: Any, **arguments: Any) -> Any:
    return getattr(triton_kernel_wrap, NAME)(kernel, arguments, *(rest or ({},)))


def test_launches_of_one_kind_are_looked_up_once(asked: list[dict[str, Any]]) -> None:
    one, other = object(), object()
    x, y = torch.zeros(3), torch.ones(5)
    with launches_known_by_kind():
        first = ask(one, x=x, size=3, RELU=True)
        assert ask(one, RELU=True, size=3, x=y) is first
        assert len(asked) == 1
        kinds = [
            ask(other, x=x, size=3, RELU=True),
            ask(one, x=x.bfloat16(), size=3, RELU=True),
            ask(one, x=None, size=3, RELU=True),
            ask(one, x=x, size=1, RELU=True),
            ask(one, x=x, size=3, RELU=False),
            ask(one, x=x, size=3),
        ]
    assert len(asked) == 7
    assert len({id(answer) for answer in (first, *kinds)}) == 7
    assert [kinds[0], kinds[1]] == [[other], [one]]


def test_descriptors_of_memory_are_asked_about_each_time(asked: list[dict[str, Any]]) -> None:
    with launches_known_by_kind():
        for _ in range(2):
            ask("kernel", {"x": "descriptor"}, x=1)
    assert len(asked) == 2


def test_torch_is_left_as_it_was(asked: list[dict[str, Any]]) -> None:
    before = getattr(triton_kernel_wrap, NAME)
    with launches_known_by_kind():
        assert getattr(triton_kernel_wrap, NAME) is not before
    assert getattr(triton_kernel_wrap, NAME) is before
    with pytest.raises(RuntimeError), launches_known_by_kind():
        raise RuntimeError
    assert getattr(triton_kernel_wrap, NAME) is before
    with launches_known_by_kind():
        ask("kernel", x=1)
    with launches_known_by_kind():  # what was known is forgotten
        ask("kernel", x=1)
    assert len(asked) == 2


def test_a_torch_without_the_function_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_QUESTIONS", ("nowhere",))
    before = getattr(triton_kernel_wrap, NAME)
    with launches_known_by_kind():
        assert getattr(triton_kernel_wrap, NAME) is before
