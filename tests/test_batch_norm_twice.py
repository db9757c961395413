"""A block's end on the kernels: two results, whose gradients meet in the backward, held to the reference in fp64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from batch_norm_calls import EPS, case, run
from formulas import errs_no_more_than
from torch import Tensor

from fastuda_kernels.batch_norm import batch_norm_twice
from fastuda_kernels.batch_norm import triton as fused
from fastuda_kernels.batch_norm.reference import grouped_batch_norm


def both(function: Any) -> Any:
    """A function of a result given twice, as one of both, one behind the other: each has an upstream of its own."""

    def together(relu: bool, **own: Any) -> Tensor:
        assert relu
        return torch.cat(function(**own))

    return together


def kernels_twice(**own: Any) -> tuple[Tensor, Tensor]:
    """The kernels' results for two readers."""
    first, second = fused.batch_norm(**own, relu=True, twice=True)
    return first, second


def twice(**own: Any) -> tuple[Tensor, Tensor]:
    """The reference's result for two readers."""
    y = grouped_batch_norm(**own, relu=True)
    return y, y


@pytest.mark.parametrize(
    ("size", "num_groups", "dtype"),
    [
        ((6, 16, 5, 7), 3, torch.float32),
        ((1, 1, 1, 1), 1, torch.float32),
        ((4, 19, 5, 3), 2, torch.float32),
        ((2, 300, 3, 5), 1, torch.float32),
        ((4, 24, 6, 7), 2, torch.bfloat16),
        ((4, 24, 6, 7), 1, torch.float16),
    ],
)
def test_gradients_of_a_result_given_twice_are_added(
    size: tuple[int, ...], num_groups: int, dtype: torch.dtype, device: torch.device
) -> None:
    call = case(*size, num_groups=num_groups, residual=True, relu=True, dtype=dtype, device=device)
    wide = {name: value.cpu().double() if isinstance(value, Tensor) else value for name, value in call.items()}
    upstream = torch.randn((2 * size[0], *size[1:]), generator=torch.Generator().manual_seed(3))
    ours, plain = run(both(kernels_twice), call, upstream), run(both(twice), call, upstream)
    exact = run(both(twice), wide, upstream)
    for name, value in ours.items():
        eps = EPS if value.dtype == torch.float32 else torch.finfo(dtype).eps / 2
        errs_no_more_than(value.cpu(), plain[name].cpu(), exact[name], eps=eps)


def test_a_result_given_twice_may_be_used_once(device: torch.device) -> None:
    call = case(2, 16, 3, 3, num_groups=2, residual=True, relu=True, device=device)
    expected = run(fused.batch_norm, call, torch.ones(2, 16, 3, 3))
    del call["relu"]
    for used in (0, 1):
        actual = run(lambda **own: kernels_twice(**own)[used], call, torch.ones(2, 16, 3, 3))  # noqa: B023
        assert all(torch.equal(actual[name], expected[name]) for name in expected)
    first, second = kernels_twice(**call)
    assert first.data_ptr() == second.data_ptr()


@pytest.mark.usefixtures("poisoned")
def test_a_frozen_residual_of_a_result_given_twice(device: torch.device) -> None:
    call = case(2, 19, 3, 3, residual=True, relu=True, device=device)
    upstream = torch.randn(4, 19, 3, 3, generator=torch.Generator().manual_seed(3)).to(device)
    expected = run(both(kernels_twice), call, upstream)
    call["x"].requires_grad_()
    both(kernels_twice)(**call).backward(upstream)
    assert torch.equal(call["x"].grad, expected["dx"])
    assert call["residual"].grad is None


@pytest.mark.usefixtures("kernels_everywhere")
def test_the_public_function_gives_results_twice(device: torch.device) -> None:
    call = case(4, 16, 3, 3, num_groups=2, residual=True, relu=True, momentum=0.3, device=device) | {"eps": 0.1}
    call["num_batches_tracked"] = torch.zeros((), dtype=torch.int64, device=device)
    ours = run(both(lambda x, weight, bias, running_mean, running_var, **settings: batch_norm_twice(
        x, weight, bias, running_mean, running_var, **settings)), call, torch.ones(8, 16, 3, 3))  # fmt: skip
    expected = run(both(twice), call, torch.ones(8, 16, 3, 3))
    for name in expected:
        torch.testing.assert_close(ours[name], expected[name])


def test_results_given_twice_compile_without_a_graph_break(device: torch.device) -> None:
    call = case(4, 16, 3, 3, num_groups=2, residual=True, relu=True, device=device)
    compiled = torch.compile(both(kernels_twice), fullgraph=True, backend="aot_eager")
    upstream = torch.randn(8, 16, 3, 3, generator=torch.Generator().manual_seed(3))
    actual, expected = (run(f, call, upstream) for f in (compiled, both(kernels_twice)))
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name])
