"""batch_norm's Triton kernels: held to the reference in fp64, on a GPU or through the interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from batch_norm_calls import EPS, NAMES, Call, case, exactly, run
from formulas import batch_norm_passes, errs_no_more_than
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fastuda_kernels.batch_norm import batch_norm
from fastuda_kernels.batch_norm import triton as fused
from fastuda_kernels.batch_norm.reference import grouped_batch_norm
from fastuda_kernels.operators import INTERPRETED


def held(call: Call, *, eager: Any = grouped_batch_norm) -> dict[str, Tensor]:
    """The kernels' results, after a check that each errs no more than eager PyTorch of the same type."""
    ours, plain, exact = run(fused.batch_norm, call), run(eager, call), exactly(call)
    for name, value in ours.items():
        eps = EPS if value.dtype == torch.float32 else torch.finfo(value.dtype).eps / 16
        errs_no_more_than(value.cpu(), plain[name].cpu(), exact[name], eps=eps)
    assert ours["y"].is_contiguous(memory_format=torch.channels_last)
    assert ours["dx"].is_contiguous(memory_format=torch.channels_last)
    return ours


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("num_groups", [1, 2, 3])
def test_equals_the_reference(num_groups: int, residual: bool, relu: bool, device: torch.device) -> None:
    held(case(6, 16, 5, 7, num_groups=num_groups, residual=residual, relu=relu, device=device))


@pytest.mark.parametrize(
    ("size", "num_groups"),
    [
        ((1, 1, 1, 1), 1),
        ((3, 8, 1, 1), 3),
        ((2, 1, 3, 1), 1),
        ((2, 9, 1, 4), 2),
        ((4, 19, 5, 3), 2),
        ((2, 264, 3, 3), 1),
        ((1, 300, 3, 5), 1),
        ((2, 3, 33, 35), 1),
    ],
)
def test_odd_sizes(size: tuple[int, ...], num_groups: int, device: torch.device) -> None:
    ours = held(case(*size, num_groups=num_groups, residual=True, relu=True, device=device))
    assert all(value.isfinite().all() for value in ours.values())


@pytest.mark.parametrize("function", [fused.batch_norm, grouped_batch_norm])
def test_batches_are_counted_a_group_each(function: Any, device: torch.device) -> None:
    counted = torch.full((), 5, device=device)
    run(function, case(6, 300, 2, 2, num_groups=3, device=device))
    with torch.no_grad():
        function(**case(6, 300, 2, 2, num_groups=3, device=device) | {"num_batches_tracked": counted})
    assert int(counted) == 8


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 20), st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_any_shape(num_groups: int, images: int, channels: int, height: int, width: int, relu: bool) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size = (num_groups * images, channels, height, width)
    held(case(*size, num_groups=num_groups, residual=not relu, relu=relu, device=device))


def test_sums_over_many_splits(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    monkeypatch.setattr(fused, "num_multiprocessors", lambda device: 3)
    call = case(2, 264, 9, 9, num_groups=2, residual=True, relu=True, device=device)
    splits = [fused._split(call["x"], 2, steps)[0] for steps in (fused._STATISTICS_STEPS, fused._SUMS_STEPS)]
    assert splits == [3, 3]
    monkeypatch.setattr(fused, "_FINISH_SPLITS", 2)  # fewer than there are
    held(call)


@pytest.mark.parametrize("num_multiprocessors", [1, 4])
def test_a_mean_far_from_zero_costs_no_digits(
    num_multiprocessors: int, monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    monkeypatch.setattr(fused, "num_multiprocessors", lambda device: num_multiprocessors)
    call = case(1, 264, 9, 11, mean=1000.0, momentum=1.0, device=device)
    ours = held(call)
    # E[x²] - E[x]² in fp32 would be off by 0.06 here.
    assert (ours["running_var"].cpu() - exactly(call)["running_var"]).abs().max() < 2e-5


def test_a_split_that_starts_far_from_its_mean(device: torch.device) -> None:
    call = case(1, 264, 9, 9, momentum=1.0, device=device)
    call["x"][:, :, 0, :8] += 1000
    exact = exactly(call)["running_var"]
    error = (run(fused.batch_norm, call)["running_var"].cpu() - exact).abs() / exact
    assert error.max() < 81 / 8 * 4 * EPS


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("num_groups", [1, 2])
def test_low_precision_errs_no_more_than_torchs_passes(
    num_groups: int, dtype: torch.dtype, device: torch.device
) -> None:
    call = case(4, 24, 6, 7, num_groups=num_groups, residual=True, relu=True, dtype=dtype, device=device)
    ours = held(call, eager=batch_norm_passes)
    assert {ours[name].dtype for name in ("y", "dx", "dresidual")} == {dtype}
    assert {ours[name].dtype for name in ("dweight", "dbias", "running_mean")} == {torch.float32}
    # All but the one rounding at the end is fp32; the interpreter cuts bf16 off where a GPU rounds to the nearest.
    exact, steps = exactly(call), 1.01 if INTERPRETED and dtype == torch.bfloat16 else 0.51
    for name in ("y", "dx", "dresidual"):
        error = (ours[name].cpu().double() - exact[name]).abs()
        assert (error <= torch.finfo(dtype).eps * steps * exact[name].abs() + 1e-5).all()


@pytest.mark.usefixtures("poisoned")
def test_nothing_unwritten_is_read(device: torch.device) -> None:
    for relu in (False, True):
        ours = held(case(4, 19, 5, 3, num_groups=2, residual=True, relu=relu, device=device))
        assert all(value.isfinite().all() for value in ours.values())


def test_two_runs_agree_bit_for_bit(device: torch.device) -> None:
    call = case(2, 40, 9, 11, residual=True, relu=True, device=device)
    first, second = (run(fused.batch_norm, call) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_any_memory_format(device: torch.device) -> None:
    call = case(2, 19, 5, 7, num_groups=2, residual=True, relu=True, device=device)
    upstream = torch.randn(2, 7, 5, 19, generator=torch.Generator().manual_seed(2)).permute(0, 3, 2, 1)
    expected = run(fused.batch_norm, call, upstream.contiguous(memory_format=torch.channels_last))
    turned = call | {name: call[name].transpose(2, 3).contiguous().transpose(2, 3) for name in ("x", "residual")}
    assert not turned["x"].is_contiguous(memory_format=torch.channels_last)
    for other in (turned, call | {"x": call["x"].contiguous()}):
        actual = run(fused.batch_norm, other, upstream)
        assert all(torch.equal(actual[name], expected[name]) for name in expected)
    one = run(lambda **own: fused.batch_norm(**own).sum(), call, torch.ones(()))
    ones = run(fused.batch_norm, call, torch.ones(2, 19, 5, 7))
    assert torch.equal(one["dx"], ones["dx"])


def test_nan_shows(device: torch.device) -> None:
    call = case(2, 16, 3, 3, num_groups=2, relu=True, device=device)
    call["x"][0, 2, 1, 1] = float("nan")
    ours = run(fused.batch_norm, call)
    broken = torch.zeros(2, 16, dtype=torch.bool, device=device)
    broken[0, 2] = True
    for name in ("y", "dx"):
        assert torch.equal(ours[name].isnan().any((2, 3)), broken)
    assert torch.equal(ours["running_mean"].isfinite(), ~broken.any(0))


def test_frozen_weights_and_a_frozen_residual(device: torch.device) -> None:
    call = case(2, 16, 3, 3, residual=True, relu=True, device=device)
    expected = run(fused.batch_norm, call, torch.ones(2, 16, 3, 3))
    call["x"].requires_grad_()
    fused.batch_norm(**call).sum().backward()
    assert torch.equal(call["x"].grad, expected["dx"])
    assert call["weight"].grad is call["residual"].grad is None
    # A residual alone may have a gradient too.
    call["x"] = call["x"].detach()
    call["residual"].requires_grad_()
    fused.batch_norm(**call).sum().backward()
    assert torch.equal(call["residual"].grad, expected["dresidual"])


def test_a_mask_is_made_only_for_a_gradient(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    asked, normalise = [], fused.normalise
    monkeypatch.setattr(fused, "normalise", lambda *given: asked.append(given[-1]) or normalise(*given))
    call = case(2, 16, 3, 3, relu=True, device=device)
    expected = fused.batch_norm(**call)
    call["weight"].requires_grad_()
    with torch.no_grad():
        assert torch.equal(fused.batch_norm(**call), expected)
    assert torch.equal(fused.batch_norm(**call), expected)
    assert torch.equal(fused.batch_norm(**call | {"relu": False}).relu(), expected)
    assert asked == [False, False, True, False]


def test_a_backward_may_come_after_another_forward(device: torch.device) -> None:
    call = case(2, 16, 3, 3, relu=True, device=device)
    expected = run(fused.batch_norm, call, torch.ones(2, 16, 3, 3))
    x = call["x"].clone().requires_grad_()
    eager_x = call["x"].clone().requires_grad_()
    names = ("running_mean", "running_var", "weight", "bias")
    eager = torch.nn.functional.batch_norm(eager_x, *(call[name] for name in names), training=True)
    first = fused.batch_norm(**call | {"x": x})
    fused.batch_norm(**call | {"x": 3 * x.detach()})
    first.sum().backward()
    eager.sum().backward()
    assert torch.equal(x.grad, expected["dx"])


def test_autocast_changes_nothing(device: torch.device) -> None:
    call = case(2, 16, 3, 3, residual=True, relu=True, dtype=torch.bfloat16, device=device)
    expected = run(fused.batch_norm, call)
    with torch.autocast(device.type, torch.bfloat16):
        actual = run(fused.batch_norm, call)
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


@pytest.mark.usefixtures("kernels_everywhere")
def test_the_public_function_passes_everything_on(device: torch.device) -> None:
    call = case(4, 16, 3, 3, num_groups=2, residual=True, relu=True, momentum=0.3, device=device) | {"eps": 0.1}
    call["num_batches_tracked"] = torch.zeros((), dtype=torch.int64, device=device)
    ours = run(lambda x, weight, bias, running_mean, running_var, **settings: batch_norm(
        x, weight, bias, running_mean, running_var, **settings), call)  # fmt: skip
    expected = run(grouped_batch_norm, call)
    for name in expected:
        torch.testing.assert_close(ours[name], expected[name])
    assert all(torch.equal(value, ours[name]) for name, value in run(fused.batch_norm, call).items())


def test_the_operators_are_sound(device: torch.device) -> None:
    call = case(2, 9, 2, 3, num_groups=2, residual=True, relu=True, device=device)
    x, weight, bias, residual = (call[name] for name in NAMES)
    counted = torch.zeros((), dtype=torch.int64, device=device)
    statistics = (x, call["running_mean"], call["running_var"], counted, 2, 0.1, 1e-5)
    torch.library.opcheck(fused.statistics, (*statistics[:3], None, *statistics[4:]))
    torch.library.opcheck(fused.statistics, statistics)
    mean, rstd = fused.statistics(*statistics)
    for relu in (True, False):
        torch.library.opcheck(fused.normalise, (x, mean, rstd, weight, bias, residual, relu, relu))
    y, mask = fused.normalise(x, mean, rstd, weight, bias, residual, True, True)
    for more, with_dz in ((None, False), (None, True), (residual, True)):
        torch.library.opcheck(fused.normalise_backward, (y, more, x, mask, mean, rstd, weight, True, with_dz))


def test_compiles_without_a_graph_break(device: torch.device) -> None:
    call = case(4, 16, 3, 3, num_groups=2, residual=True, relu=True, device=device)
    compiled = torch.compile(lambda **own: fused.batch_norm(**own) * 2, fullgraph=True, backend="aot_eager")
    actual, expected = run(compiled, call), run(lambda **own: fused.batch_norm(**own) * 2, call)
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name])


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="needs a CUDA device")
class TestGpu:
    device = torch.device("cuda")

    @pytest.mark.parametrize(("size", "num_groups"), [((2, 1024, 91, 161), 1), ((6, 256, 65, 65), 3)])
    def test_the_sizes_of_the_paper(self, size: tuple[int, ...], num_groups: int) -> None:
        residual, upstream = num_groups == 1, torch.randn(size, generator=torch.Generator().manual_seed(1))
        settings: Call = {"num_groups": num_groups, "residual": residual, "relu": True, "dtype": torch.bfloat16}
        call = case(*size, **settings, device=self.device)
        ours, plain = (run(function, call, upstream) for function in (fused.batch_norm, batch_norm_passes))
        exact = exactly(call, upstream)
        for name in ours:
            errs_no_more_than(ours[name].cpu(), plain[name].cpu(), exact[name], eps=EPS)

    def test_compiled_and_captured(self) -> None:
        call = case(6, 64, 33, 33, num_groups=3, residual=True, relu=True, dtype=torch.bfloat16, device=self.device)
        expected = run(fused.batch_norm, call, torch.ones(6, 64, 33, 33))
        own = {name: value.clone() if isinstance(value, Tensor) else value for name, value in call.items()}
        inputs = [own[name].requires_grad_() for name in NAMES]
        ones = torch.ones_like(own["x"])

        def step() -> list[Tensor]:
            y = compiled(**own)
            return [y.detach(), *torch.autograd.grad(y, inputs, ones)]

        compiled = torch.compile(fused.batch_norm, fullgraph=True)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = step()
        for name in ("running_mean", "running_var"):
            own[name].copy_(call[name])
        graph.replay()
        names = ("y", *(f"d{name}" for name in NAMES))
        for name, value in {**dict(zip(names, found, strict=True)), "running_var": own["running_var"]}.items():
            assert torch.equal(value, expected[name]), name
