"""batch_norm: the reference equals torch's layers, a pass a group, in values, gradients and running statistics."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from formulas import batch_norm_passes
from torch import Tensor, nn

from fastuda_kernels.batch_norm import batch_norm, batch_norm_twice

EPS = 1e-5


def arguments(*size: int, seed: int = 0, dtype: torch.dtype = torch.float64, residual: bool = False) -> dict[str, Any]:
    """Every tensor of a call, those with a gradient as leaves."""
    generator = torch.Generator().manual_seed(seed)
    wide = torch.float64 if dtype == torch.float64 else torch.float32

    def noise(*shape: int, kind: torch.dtype = wide) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(kind)

    channels = size[1]
    made: dict[str, Any] = {
        "x": (2 * noise(*size, kind=torch.float64) + noise(1, channels, 1, 1)).to(dtype).requires_grad_(),
        "weight": noise(channels).requires_grad_(),
        "bias": noise(channels).requires_grad_(),
        "running_mean": noise(channels),
        "running_var": noise(channels).abs(),
    }
    if residual:
        made["residual"] = noise(*size, kind=dtype).requires_grad_()
    return made


def gradients(result: Tensor, made: dict[str, Any]) -> list[Tensor]:
    upstream = torch.randn(result.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    inputs = [made[name] for name in ("x", "weight", "bias", "residual") if name in made]
    return list(torch.autograd.grad(result, inputs, upstream.to(result.dtype)))


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("num_groups", [1, 2, 3])
def test_equals_torchs_layer_a_group(num_groups: int, residual: bool, relu: bool) -> None:
    ours, theirs = (arguments(6, 5, 4, 3, residual=residual) for _ in range(2))
    actual = batch_norm(**ours, momentum=0.1, num_groups=num_groups, relu=relu)
    expected = batch_norm_passes(**theirs, momentum=0.1, eps=EPS, num_groups=num_groups, relu=relu)
    assert actual.is_contiguous(memory_format=torch.channels_last)
    pairs = [(actual, expected), *((ours[name], theirs[name]) for name in ("running_mean", "running_var"))]
    pairs += zip(gradients(actual, ours), gradients(expected, theirs), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_result_given_twice_is_the_same_twice() -> None:
    ours, theirs = (arguments(6, 5, 4, 3, residual=True) for _ in range(2))
    first, second = batch_norm_twice(**ours, momentum=0.1, num_groups=2)
    expected = batch_norm(**theirs, momentum=0.1, num_groups=2, relu=True)
    for result in (first, second):
        assert torch.equal(result, expected)
    assert torch.equal(ours["running_var"], theirs["running_var"])
    for one, other in zip(gradients(first + 2 * second, ours), gradients(3 * expected, theirs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="num_groups must divide the 6 images"):
        batch_norm_twice(**ours, momentum=0.1, num_groups=4)


def test_equals_a_network_of_torchs_modules() -> None:
    made = arguments(4, 5, 3, 3, residual=True)
    layer = nn.BatchNorm2d(5, momentum=0.3, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(made["weight"])
        layer.bias.copy_(made["bias"])
        layer.running_mean.copy_(made["running_mean"])  # type: ignore[union-attr]
        layer.running_var.copy_(made["running_var"])  # type: ignore[union-attr]
    expected = (layer(made["x"]) + made["residual"]).relu()
    torch.testing.assert_close(batch_norm(**made, momentum=0.3, relu=True), expected)
    torch.testing.assert_close(made["running_mean"], layer.running_mean)
    torch.testing.assert_close(made["running_var"], layer.running_var)


def test_the_gradient_is_that_of_finite_differences() -> None:
    made = arguments(4, 3, 2, 2, residual=True)
    names = ("x", "weight", "bias", "residual")
    rest = {name: value for name, value in made.items() if name not in names}

    def call(*inputs: Tensor) -> Tensor:
        return batch_norm(**dict(zip(names, inputs, strict=True)), **rest, momentum=0.0, num_groups=2, relu=True)

    torch.autograd.gradcheck(call, [made[name] for name in names])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_computes_in_fp32_and_returns_xs_type(dtype: torch.dtype) -> None:
    made = arguments(4, 6, 5, 5, dtype=dtype, residual=True)
    exact = {name: value.detach().double() for name, value in made.items()}
    actual = batch_norm(**made, momentum=0.1, num_groups=2, relu=True)
    expected = batch_norm(**exact, momentum=0.1, num_groups=2, relu=True)
    assert actual.dtype == dtype
    assert all(g.dtype == made[n].dtype for g, n in zip(gradients(actual, made), ("x", "weight", "bias"), strict=False))
    # One rounding to the type, and not one an operation.
    assert (actual.double() - expected).abs().max() <= torch.finfo(dtype).eps * expected.abs().max()
    torch.testing.assert_close(made["running_mean"].double(), exact["running_mean"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(made["running_var"].double(), exact["running_var"], rtol=1e-5, atol=1e-6)


def test_a_momentum_of_zero_leaves_the_running_statistics() -> None:
    made = arguments(4, 3, 2, 2)
    before = [made[name].clone() for name in ("running_mean", "running_var")]
    batch_norm(**made, momentum=0.0)
    assert torch.equal(before[0], made["running_mean"])
    assert torch.equal(before[1], made["running_var"])


def test_one_position_a_group_has_no_variance() -> None:
    made = arguments(2, 3, 1, 1)
    result = batch_norm(**made, momentum=1.0, num_groups=2)
    torch.testing.assert_close(result, made["bias"][None, :, None, None].expand(2, 3, 1, 1))
    torch.testing.assert_close(made["running_mean"], made["x"][1, :, 0, 0])
    assert not made["running_var"].any()


def test_an_earlier_pass_of_torchs_layer_can_still_go_backward() -> None:
    made = arguments(2, 3, 2, 2)
    layer = nn.functional.batch_norm(
        made["x"], made["running_mean"], made["running_var"], made["weight"], made["bias"], training=True
    )
    batch_norm(**made, momentum=0.1)
    layer.sum().backward()
    assert made["x"].grad is not None


def test_a_frozen_layer_has_a_gradient_for_its_input_alone() -> None:
    made = arguments(2, 3, 2, 2)
    frozen = made | {name: made[name].detach() for name in ("weight", "bias")}
    (gradient,) = torch.autograd.grad(batch_norm(**frozen, momentum=0.1).square().sum(), [made["x"]])
    expected = torch.autograd.grad(batch_norm(**made, momentum=0.1).square().sum(), [made["x"]])[0]
    torch.testing.assert_close(gradient, expected)


def test_any_memory_format() -> None:
    made = arguments(4, 3, 2, 5)
    expected = batch_norm(**made, momentum=0.0)
    for x in (made["x"].contiguous(memory_format=torch.channels_last), made["x"].transpose(2, 3).contiguous().mT):
        actual = batch_norm(**made | {"x": x}, momentum=0.0)
        assert actual.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(actual, expected)


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": torch.zeros(2, 3, 4)}, ValueError, r"x must have shape \[any, any, any, any\], got \[2, 3, 4\]"),
    ({"x": torch.zeros(2, 3, 4, 5, dtype=torch.int64)}, TypeError, "x must be torch.float64 or"),
    ({"x": torch.zeros(2, 3, 0, 5)}, ValueError, r"x must not be empty, got shape \[2, 3, 0, 5\]"),
    ({"weight": torch.zeros(4)}, ValueError, r"weight must have shape \[3\], got \[4\]"),
    ({"bias": torch.zeros(3, dtype=torch.bfloat16)}, TypeError, "bias must be torch.float32, got torch.bfloat16"),
    ({"running_mean": torch.zeros(3, dtype=torch.float64)}, TypeError, "running_mean must be torch.float32"),
    ({"running_var": torch.zeros(3, device="meta")}, ValueError, "running_var is on meta"),
    ({"running_var": torch.zeros(6)[::2]}, ValueError, r"running_var must be contiguous, got stride \(2,\)"),
    ({"residual": torch.zeros(2, 3, 4, 4)}, ValueError, r"residual must have shape \[2, 3, 4, 5\]"),
    ({"residual": torch.zeros(2, 3, 4, 5).half()}, TypeError, "residual must be torch.float32, got torch.float16"),
    ({"num_groups": 3}, ValueError, "num_groups must divide the 2 images of x, got 3"),
    ({"num_groups": 0}, ValueError, "num_groups must divide the 2 images of x, got 0"),
    ({"momentum": 1.5}, ValueError, "momentum must be from 0 to 1, got 1.5"),
]


@pytest.mark.parametrize(("changed", "error", "message"), BAD)
def test_arguments_that_do_not_fit_are_named(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    good = {name: torch.zeros(3) for name in ("weight", "bias", "running_mean", "running_var")}
    with pytest.raises(error, match=message):
        batch_norm(**{"x": torch.zeros(2, 3, 4, 5), "momentum": 0.1, **good, **changed})
