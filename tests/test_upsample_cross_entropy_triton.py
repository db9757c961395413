"""upsample_cross_entropy's Triton kernels: held to the dense formula in fp64, on a GPU or through the interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from formulas import dense_cross_entropy, errs_no_more_than
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fastuda_kernels.operators import INTERPRETED
from fastuda_kernels.upsample_cross_entropy import triton as fused
from fastuda_kernels.upsample_cross_entropy import upsample_cross_entropy
from fastuda_kernels.upsample_cross_entropy.reference import cross_entropy_of_upsampled

EPS = torch.finfo(torch.float32).eps


def case(
    low: tuple[int, int],
    full: tuple[int, int],
    *,
    num_images: int = 3,
    num_classes: int = 19,
    sharpness: float = 3.0,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """fp32 logits and uint8 labels, about one in six of them ignored, never all."""
    generator = torch.Generator().manual_seed(full[0] * 100 + full[1])
    logits = sharpness * torch.randn(num_images, num_classes, *low, generator=generator)
    labels = torch.randint(0, num_classes, (num_images, *full), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.16] = 255
    labels[0, 0, 0] = 0
    return logits.to(device), labels.to(torch.uint8).to(device)


def kernel(
    logits: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    ignore_index: int = 255,
    align_corners: bool = True,
) -> Tensor:
    return fused.upsample_cross_entropy(logits, labels, ignore_index, weight, mask, align_corners)


def run(function: Any, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and gradient."""
    logits = logits.detach().requires_grad_()
    loss = function(logits)
    (gradient,) = torch.autograd.grad(loss, logits)
    return loss.detach(), gradient


def held_to_dense(
    logits: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    align_corners: bool = True,
) -> tuple[Tensor, Tensor]:
    """The kernel's loss and gradient, after a check that they err no more than eager fp32."""
    ours = run(lambda z: kernel(z, labels, weight=weight, mask=mask, align_corners=align_corners), logits)
    factor, counted = (None if t is None else t.cpu() for t in (weight, mask))
    target = labels.cpu()
    eager = run(lambda z: cross_entropy_of_upsampled(z, target, 255, factor, counted, align_corners), logits.cpu())
    kept = target != 255 if counted is None else (target != 255) & counted
    exact_factor = None if factor is None else factor.double()
    exact = run(lambda z: dense_cross_entropy(z, target, kept, exact_factor, align_corners), logits.cpu().double())
    for actual, plain, truth in zip(ours, eager, exact, strict=True):
        errs_no_more_than(actual.cpu(), plain, truth, eps=EPS)
    return ours


SIZES = [
    ((1, 1), (1, 1)),
    ((1, 1), (5, 7)),
    ((1, 4), (7, 9)),
    ((3, 4), (12, 16)),
    ((5, 6), (3, 4)),
    ((9, 3), (65, 17)),
    ((20, 3), (3, 12)),
    ((4, 5), (4, 5)),
]


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("low", "full"), SIZES)
def test_equals_the_dense_formula(
    low: tuple[int, int], full: tuple[int, int], align_corners: bool, device: torch.device
) -> None:
    held_to_dense(*case(low, full, device=device), align_corners=align_corners)


@pytest.mark.parametrize("num_classes", [1, 2, 40])
@pytest.mark.parametrize("num_images", [1, 3])
def test_other_classes_and_batches(num_images: int, num_classes: int, device: torch.device) -> None:
    held_to_dense(*case((3, 4), (9, 13), num_images=num_images, num_classes=num_classes, device=device))


def test_nearly_one_hot_logits(device: torch.device) -> None:
    held_to_dense(*case((3, 4), (12, 16), sharpness=40, device=device))


@given(
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.integers(1, 21),
    st.booleans(),
)
def test_any_shape(low: tuple[int, int], full: tuple[int, int], num_classes: int, align_corners: bool) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    held_to_dense(*case(low, full, num_classes=num_classes, device=device), align_corners=align_corners)


@pytest.mark.parametrize("align_corners", [True, False])
def test_every_pixel_lies_in_exactly_one_patch(align_corners: bool, device: torch.device) -> None:
    for low in (1, 2, 5, 8, 23):
        for full in (1, 2, 7, 8, 9, 41):
            logits = torch.zeros(1, 2, 1, low, device=device)
            labels = torch.zeros(1, 1, full, dtype=torch.uint8, device=device)
            loss, gradient = run(lambda z, y=labels: kernel(z, y, align_corners=align_corners), logits)
            # Each pixel gives log 2, and -1/2 spread over its corners; one lost or counted twice changes a mean.
            assert loss.item() == pytest.approx(0.693147, rel=1e-5), (low, full)
            assert gradient[0, 0].sum().item() == pytest.approx(-0.5, rel=1e-5), (low, full)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("low", "full"), [((3, 4), (12, 16)), ((1, 5), (13, 9)), ((6, 5), (4, 3))])
def test_weight_and_mask(
    low: tuple[int, int], full: tuple[int, int], align_corners: bool, device: torch.device
) -> None:
    logits, labels = case(low, full, device=device)
    generator = torch.Generator().manual_seed(0)
    weight = 3 * torch.rand(labels.shape, generator=generator).to(device)
    weight[:, ::3] = 0
    mask = torch.rand(labels.shape, generator=generator).to(device) < 0.5
    mask[0, 0, 0] = True
    held_to_dense(logits, labels, weight=weight, align_corners=align_corners)
    held_to_dense(logits, labels, mask=mask, align_corners=align_corners)
    held_to_dense(logits, labels, weight=weight, mask=mask, align_corners=align_corners)


def test_the_weight_of_a_pixel_that_does_not_count_is_not_looked_at(device: torch.device) -> None:
    logits, labels = case((3, 4), (12, 16), device=device)
    mask = labels != 2
    weight = torch.rand(labels.shape, generator=torch.Generator().manual_seed(0)).to(device)
    expected = run(lambda z: kernel(z, labels, weight=weight, mask=mask), logits)
    poisoned = torch.where(mask & (labels != 255), weight, torch.nan)
    actual = run(lambda z: kernel(z, labels, weight=poisoned, mask=mask), logits)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_weight_of_any_float_type_that_is_a_slice(dtype: torch.dtype, device: torch.device) -> None:
    logits, labels = case((3, 4), (12, 16), device=device)
    weight = torch.rand(3, 16, 12, generator=torch.Generator().manual_seed(0)).to(device, dtype).transpose(1, 2)
    expected = run(lambda z: kernel(z, labels, weight=weight.float().contiguous()), logits)
    actual = run(lambda z: kernel(z, labels, weight=weight), logits)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_no_gradient_reaches_a_weight(device: torch.device) -> None:
    logits, labels = case((3, 4), (5, 7), device=device)
    weight = torch.ones(labels.shape, device=device, requires_grad=True)
    assert not kernel(logits, labels, weight=weight).requires_grad
    kernel(logits.requires_grad_(), labels, weight=weight).backward()
    assert weight.grad is None
    assert logits.grad is not None


@pytest.mark.parametrize("reason", ["ignored", "masked"])
def test_nothing_to_count_gives_zero_and_a_zero_gradient(reason: str, device: torch.device) -> None:
    logits, labels = case((3, 4), (5, 7), device=device)
    nothing = torch.zeros(labels.shape, dtype=torch.bool, device=device)
    ignored = reason == "ignored"
    arguments = (torch.full_like(labels, 255), None) if ignored else (labels, nothing)
    for weight in (None, torch.full(labels.shape, torch.nan, device=device)):
        loss, gradient = run(lambda z, w=weight: kernel(z, arguments[0], mask=arguments[1], weight=w), logits)
        assert loss.item() == 0
        assert not gradient.any()


def test_another_ignore_index_and_int64_labels(device: torch.device) -> None:
    logits, labels = case((3, 4), (5, 7), device=device)
    expected = run(lambda z: kernel(z, labels), logits)
    relabelled = torch.where(labels == 255, torch.full_like(labels, 77), labels).long()
    actual = run(lambda z: kernel(z, relabelled, ignore_index=77), logits)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_a_label_that_is_no_class_shows_as_nan(device: torch.device) -> None:
    logits, labels = case((3, 4), (5, 7), device=device)
    labels[0, 2, 2] = 19
    assert torch.isnan(kernel(logits, labels))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_any_float_type_and_memory_format(dtype: torch.dtype, device: torch.device) -> None:
    logits, labels = case((3, 4), (12, 16), device=device)
    logits = logits.to(dtype)
    loss, gradient = run(lambda z: kernel(z, labels), logits)
    target = labels.cpu()
    exact = run(lambda z: dense_cross_entropy(z, target, target != 255, None, True), logits.cpu().double())
    assert (loss.dtype, gradient.dtype) == (torch.float32, dtype)
    assert loss.item() == pytest.approx(exact[0].item(), rel=1e-6)
    assert (gradient.cpu().double() - exact[1]).abs().max() <= torch.finfo(dtype).eps * 4 * exact[1].abs().max()

    strided = logits.to(memory_format=torch.channels_last)
    strided_loss, strided_gradient = run(lambda z: kernel(z, labels), strided)
    assert strided_gradient.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(strided_loss, loss)
    assert torch.equal(strided_gradient, gradient)


def test_logits_that_are_a_slice(device: torch.device) -> None:
    logits, labels = case((6, 8), (12, 16), device=device)
    cut = logits[:, 2:9, ::2, 1:5]
    labels = torch.where(labels == 255, labels, labels % 7)
    assert not cut.is_contiguous()
    copied = run(lambda z: kernel(z, labels), cut.contiguous())
    assert all(torch.equal(a, b) for a, b in zip(run(lambda z: kernel(z, labels), cut), copied, strict=True))


@pytest.mark.usefixtures("poisoned")
def test_nothing_unwritten_is_read(device: torch.device) -> None:
    logits, labels = case((3, 4), (12, 17), device=device)
    held_to_dense(logits, labels)
    weight = torch.rand(labels.shape, generator=torch.Generator().manual_seed(0)).to(device)
    held_to_dense(logits, labels, weight=weight, mask=labels != 2, align_corners=False)


def test_two_runs_agree_bit_for_bit(device: torch.device) -> None:
    logits, labels = case((4, 5), (29, 37), device=device)
    first, second = (run(lambda z: kernel(z, labels), logits) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_without_a_gradient_none_is_made(device: torch.device) -> None:
    logits, labels = case((3, 4), (12, 16), device=device)
    with torch.no_grad():
        loss = kernel(logits.requires_grad_(), labels)
    assert torch.equal(loss, run(lambda z: kernel(z, labels), logits)[0])
    _, gradient = fused.cross_entropy_with_gradient(logits, labels, None, None, 255, True, False)
    assert gradient.numel() == 0


@pytest.mark.usefixtures("kernels_everywhere")
def test_the_public_function_passes_everything_on(device: torch.device) -> None:
    logits, labels = case((3, 4), (12, 16), device=device)
    weight = torch.rand(labels.shape, generator=torch.Generator().manual_seed(0)).to(device)
    mask = weight < 0.6
    settings: dict[str, Any] = {"weight": weight, "mask": mask, "ignore_index": 3, "align_corners": False}
    labels = torch.where(labels == 255, torch.full_like(labels, 3), labels)
    ours = run(lambda z: upsample_cross_entropy(z, labels, **settings), logits)
    expected = run(lambda z: cross_entropy_of_upsampled(z, labels, 3, weight, mask, False), logits)
    for actual, plain in zip(ours, expected, strict=True):
        torch.testing.assert_close(actual, plain)


def test_the_operator_is_sound(device: torch.device) -> None:
    logits, labels = case((2, 3), (4, 5), num_images=1, num_classes=3, device=device)
    logits.requires_grad_()
    mask = labels != 1
    torch.library.opcheck(fused.cross_entropy_with_gradient, (logits, labels, None, None, 255, True, True))
    torch.library.opcheck(fused.cross_entropy_with_gradient, (logits, labels, mask, mask.float(), 255, False, True))
    torch.library.opcheck(fused.cross_entropy_with_gradient, (logits.detach(), labels, None, None, 255, True, False))


def test_compiles_without_a_graph_break(device: torch.device) -> None:
    logits, labels = case((3, 4), (12, 16), device=device)
    weight = torch.rand(labels.shape, generator=torch.Generator().manual_seed(0)).to(device)
    for settings in ({}, {"weight": weight, "align_corners": False}):

        def twice(z: Tensor, settings: dict[str, Any] = settings) -> Tensor:
            return kernel(z, labels, **settings) * 2

        compiled = torch.compile(twice, fullgraph=True, backend="aot_eager")
        for actual, expected in zip(run(compiled, logits), run(twice, logits), strict=True):
            torch.testing.assert_close(actual, expected)


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="needs a CUDA device")
class TestGpu:
    device = torch.device("cuda")

    @pytest.mark.parametrize("align_corners", [True, False])
    @pytest.mark.parametrize(
        ("low", "full"), [((65, 65), (512, 512)), ((91, 161), (720, 1280)), ((128, 128), (512, 512))]
    )
    def test_the_sizes_of_the_paper(self, low: tuple[int, int], full: tuple[int, int], align_corners: bool) -> None:
        logits, labels = case(low, full, num_images=2, device=self.device)
        ours = run(lambda z: kernel(z, labels, align_corners=align_corners), logits)
        exact = run(lambda z: cross_entropy_of_upsampled(z, labels, 255, None, None, align_corners), logits.double())
        for actual, truth in zip(ours, exact, strict=True):
            assert (actual.double() - truth).abs().max() <= 1e-5 * truth.abs().max()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(lambda z: kernel(z, labels, align_corners=align_corners), logits)
        full_size = labels.numel() * 19 * 4
        assert torch.cuda.max_memory_allocated() - before < full_size / 4

    def test_a_captured_graph_replays_the_same_numbers(self) -> None:
        logits, labels = case((65, 65), (512, 512), num_images=2, device=self.device)
        logits.requires_grad_()
        static = torch.empty_like(logits)
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            torch.autograd.grad(kernel(logits, labels), logits)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            static.copy_(torch.autograd.grad(kernel(logits, labels), logits)[0])
        with torch.no_grad():
            logits.mul_(0.5)
        graph.replay()
        assert torch.equal(static, run(lambda z: kernel(z, labels), logits)[1])

    def test_compiled_by_inductor(self) -> None:
        logits, labels = case((65, 65), (512, 512), num_images=2, device=self.device)
        compiled = torch.compile(lambda z: kernel(z, labels), fullgraph=True)
        for actual, expected in zip(run(compiled, logits), run(lambda z: kernel(z, labels), logits), strict=True):
            torch.testing.assert_close(actual, expected)
