"""pixel_contrast's Triton kernels: held to the dense formula in fp64, on a GPU or through Triton's interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from formulas import dense_contrast, errs_no_more_than, probabilities
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fastuda_kernels.operators import INTERPRETED
from fastuda_kernels.pixel_contrast import pixel_contrast
from fastuda_kernels.pixel_contrast import triton as fused

EPS = torch.finfo(torch.float32).eps
Sample = tuple[Tensor, Tensor, Tensor]


def run(function: Any, p: Tensor, q: Tensor) -> Sample:
    """Loss and both gradients."""
    p, q = p.detach().requires_grad_(), q.detach().requires_grad_()
    loss = function(p, q)
    grad_p, grad_q = torch.autograd.grad(loss, (p, q), materialize_grads=True)
    return loss.detach(), grad_p, grad_q


def kernel(
    p: Tensor,
    q: Tensor,
    scale: float = 20.0,
    valid: Tensor | None = None,
    from_logits: bool = False,
    precision: str = "fp32",
) -> Tensor:
    return fused.pixel_contrast(p, q, scale, valid, from_logits=from_logits, precision=precision)


def held_to_dense(p: Tensor, q: Tensor, scale: float = 20.0, valid: Tensor | None = None) -> Sample:
    """The kernel's loss and gradients, after a check that they err no more than eager fp32."""
    mask = None if valid is None else valid.cpu()
    ours = run(lambda a, b: kernel(a, b, scale, valid), p, q)
    eager = run(lambda a, b: dense_contrast(a, b, scale, mask), p.cpu(), q.cpu())
    exact = run(lambda a, b: dense_contrast(a, b, scale, mask), p.cpu().double(), q.cpu().double())
    # A lone row's loss is log Z - s (h - 1) of terms that cancel; its rounding is that of the terms, s · eps,
    # and tensor cores cut off what they cannot hold of a sum where a CPU rounds: twice that.
    rounding = scale * EPS if INTERPRETED else 2 * scale * EPS
    assert abs(float(ours[0]) - float(exact[0])) <= 2 * abs(float(eager[0]) - float(exact[0])) + rounding
    for actual, plain, truth in zip(ours[1:], eager[1:], exact[1:], strict=True):
        errs_no_more_than(actual.cpu(), plain, truth, eps=EPS + rounding / 8)
    return ours


def pair(*shape: int, sharpness: float = 1.0, device: torch.device) -> tuple[Tensor, Tensor]:
    return (
        probabilities(*shape, sharpness=sharpness, dtype=torch.float32).to(device),
        probabilities(*shape, seed=1, sharpness=sharpness, dtype=torch.float32).to(device),
    )


@pytest.mark.parametrize("sharpness", [1.0, 30.0])
@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 7, 19), (1, 65, 19), (3, 40, 1), (1, 33, 22), (1, 20, 43)])
def test_equals_the_dense_formula(shape: tuple[int, int, int], sharpness: float, device: torch.device) -> None:
    held_to_dense(*pair(*shape, sharpness=sharpness, device=device))


@pytest.mark.parametrize("scale", [0.5, 80.0])
def test_equals_the_dense_formula_at_other_scales(scale: float, device: torch.device) -> None:
    held_to_dense(*pair(1, 11, 19, sharpness=5, device=device), scale=scale)


@given(st.integers(1, 3), st.integers(1, 24), st.integers(1, 40), st.sampled_from([1.0, 8.0]), st.randoms())
def test_any_shape(num_images: int, num_rows: int, num_classes: int, sharpness: float, random: Any) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    p, q = pair(num_images, num_rows, num_classes, sharpness=sharpness, device=device)
    valid = torch.tensor([[random.random() < 0.6 for _ in range(num_rows)] for _ in range(num_images)], device=device)
    held_to_dense(p, q, 7.0, valid)


def test_rows_left_out_take_no_part(device: torch.device) -> None:
    valid = torch.tensor(
        [[True, False, True, True, False], [False] * 5, [False, True, True, True, True]], device=device
    )
    _, grad_p, grad_q = held_to_dense(*pair(3, 5, 3, device=device), 7.0, valid)
    assert not grad_p[~valid].any()
    assert not grad_q[~valid].any()


def test_no_valid_row_at_all_gives_zero_and_zero_gradients(device: torch.device) -> None:
    valid = torch.zeros(3, 4, dtype=torch.bool, device=device)
    loss, grad_p, grad_q = run(lambda a, b: kernel(a, b, valid=valid), *pair(3, 4, 3, device=device))
    assert loss.item() == 0
    assert not grad_p.any()
    assert not grad_q.any()


def test_logits_are_softmaxed_inside_and_receive_the_gradient(device: torch.device) -> None:
    p, q = ((3 * torch.randn(3, 30, 19, generator=torch.Generator().manual_seed(s))).to(device) for s in (0, 1))
    ours = run(lambda a, b: kernel(a, b, from_logits=True), p, q)

    def dense(a: Tensor, b: Tensor) -> Tensor:
        return dense_contrast(a.softmax(-1), b.softmax(-1), 20.0)

    eager, exact = run(dense, p.cpu(), q.cpu()), run(dense, p.cpu().double(), q.cpu().double())
    for actual, plain, truth in zip(ours, eager, exact, strict=True):
        errs_no_more_than(actual.cpu(), plain, truth, eps=4 * EPS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_logits_are_computed_in_fp32(dtype: torch.dtype, device: torch.device) -> None:
    p, q = ((3 * torch.randn(1, 30, 19, generator=torch.Generator().manual_seed(s))).to(device, dtype) for s in (0, 1))
    loss, grad_p, _ = run(lambda a, b: kernel(a, b, from_logits=True), p, q)
    exact = run(lambda a, b: dense_contrast(a.softmax(-1), b.softmax(-1), 20.0), p.cpu().double(), q.cpu().double())
    assert loss.dtype == torch.float32
    assert grad_p.dtype == dtype
    assert loss.item() == pytest.approx(exact[0].item(), rel=1e-6)
    assert (grad_p.cpu().double() - exact[1]).abs().max() <= torch.finfo(dtype).eps * exact[1].abs().max()


def test_fast_errs_within_a_percent_and_more_than_fp32(device: torch.device) -> None:
    p, q = pair(1, 60, 19, sharpness=3, device=device)
    exact = run(lambda a, b: dense_contrast(a, b, 20.0), p.cpu().double(), q.cpu().double())[1]
    errors = [
        float((run(lambda a, b, k=k: kernel(a, b, precision=k), p, q)[1].cpu() - exact).abs().max())
        for k in ("fp32", "fast")
    ]
    assert errors[0] < 1e-5 * exact.abs().max()
    assert errors[0] < errors[1] < 1e-2 * exact.abs().max()


def test_views_of_a_network_map_are_read_as_they_lie(device: torch.device) -> None:
    maps = [torch.randn(3, 5, 4, 6, generator=torch.Generator().manual_seed(s)).to(device) for s in (0, 1)]
    rows = [m.flatten(2).transpose(1, 2) for m in maps]
    assert not rows[0].is_contiguous()
    ours = run(lambda a, b: kernel(a, b, from_logits=True), *rows)
    copied = run(lambda a, b: kernel(a, b, from_logits=True), *(r.contiguous() for r in rows))
    for actual, expected in zip(ours, copied, strict=True):  # the order of a softmax's sum follows the strides
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("poisoned")
def test_nothing_unwritten_is_read(device: torch.device) -> None:
    p, q = pair(3, 37, 19, device=device)
    valid = torch.rand(3, 37, generator=torch.Generator().manual_seed(0)).to(device) < 0.7
    held_to_dense(p, q)
    held_to_dense(p, q, valid=valid)


def test_two_runs_agree_bit_for_bit(device: torch.device) -> None:
    p, q = pair(3, 70, 19, device=device)
    first, second = run(kernel, p, q), run(kernel, p, q)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_columns_are_shared_out_without_a_gap(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    p, q = pair(1, 75, 5, device=device)
    whole = run(kernel, p, q)
    monkeypatch.setattr(fused, "num_multiprocessors", lambda device: 1000)
    assert fused._splits(1, 150, device) == (3, 64)
    for actual, expected in zip(run(kernel, p, q), whole, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("kernels_everywhere")
def test_the_public_function_passes_everything_on(device: torch.device) -> None:
    p, q = pair(3, 9, 5, device=device)
    valid = torch.arange(27, device=device).view(3, 9) % 3 != 0
    loss = pixel_contrast(p, q, 7.0, valid=valid, from_logits=True)
    expected = dense_contrast(p.cpu().double().softmax(-1), q.cpu().double().softmax(-1), 7.0, valid.cpu())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    fast = pixel_contrast(p, q, 7.0, valid=valid, from_logits=True, precision="fast")
    assert fast.item() != loss.item()


def test_the_operator_is_sound(device: torch.device) -> None:
    p, q = (t.requires_grad_() for t in pair(1, 6, 3, device=device))
    valid = torch.tensor([[True] * 5 + [False]], device=device)
    torch.library.opcheck(fused.contrast_forward, (p, q, None, 20.0, False, True))
    torch.library.opcheck(fused.contrast_forward, (p, q, valid, 20.0, True, False))


def test_compiles_without_a_graph_break(device: torch.device) -> None:
    p, q = pair(1, 12, 5, device=device)
    compiled = torch.compile(lambda a, b: kernel(a, b, from_logits=True) * 2, fullgraph=True, backend="aot_eager")
    plain = run(lambda a, b: kernel(a, b, from_logits=True) * 2, p, q)
    for actual, expected in zip(run(compiled, p, q), plain, strict=True):
        torch.testing.assert_close(actual, expected)


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="needs a CUDA device")
class TestGpu:
    device = torch.device("cuda")

    def test_the_size_of_the_paper_in_few_megabytes(self) -> None:
        p, q = (t.requires_grad_() for t in pair(2, 65 * 65, 19, sharpness=3, device=self.device))
        kernel(p, q).backward()
        p.grad = q.grad = None
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        loss = kernel(p, q)
        loss.backward()
        gradients = 2 * p.numel() * 4
        assert torch.cuda.max_memory_allocated() - before - gradients <= 8e6
        assert p.grad is not None
        exact = p.detach().double().requires_grad_()
        pixel_contrast(exact, q.detach().double()).backward()  # the blockwise reference, which takes fp64
        assert exact.grad is not None
        assert (p.grad.double() - exact.grad).abs().max() <= 1e-5 * exact.grad.abs().max()

    def test_a_captured_graph_replays_the_same_numbers(self) -> None:
        p, q = (t.requires_grad_() for t in pair(2, 300, 19, device=self.device))
        static = [torch.empty_like(p), torch.empty_like(q)]
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            torch.autograd.grad(kernel(p, q), (p, q))
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for out, gradient in zip(static, torch.autograd.grad(kernel(p, q), (p, q)), strict=True):
                out.copy_(gradient)
        with torch.no_grad():
            p.copy_(pair(2, 300, 19, sharpness=4, device=self.device)[0])
        graph.replay()
        for actual, expected in zip(static, run(kernel, p, q)[1:], strict=True):
            assert torch.equal(actual, expected)

    def test_compiled_by_inductor(self) -> None:
        p, q = pair(2, 300, 19, device=self.device)
        plain = run(lambda a, b: kernel(a, b, from_logits=True), p, q)
        compiled = torch.compile(lambda a, b: kernel(a, b, from_logits=True), fullgraph=True)
        for actual, expected in zip(run(compiled, p, q), plain, strict=True):
            torch.testing.assert_close(actual, expected)
