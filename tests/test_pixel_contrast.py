"""pixel_contrast: value and gradient against the dense formula in fp64, masks, memory, and its messages."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from formulas import dense_contrast, probabilities
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fastuda_kernels.pixel_contrast import pixel_contrast
from fastuda_kernels.pixel_contrast.reference import BLOCK_ROWS


def with_gradient(function: Any, p: Tensor, q: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and both gradients."""
    p, q = p.detach().requires_grad_(), q.detach().requires_grad_()
    loss = function(p, q, *args, **kwargs)
    loss.backward()
    assert p.grad is not None
    assert q.grad is not None
    return loss.detach(), p.grad, q.grad


def assert_matches_dense(p: Tensor, q: Tensor, scale: float = 20.0, valid: Tensor | None = None) -> None:
    """In fp64, value and both gradients equal the dense formula's up to rounding."""
    ours = with_gradient(pixel_contrast, p, q, scale, valid=valid)
    dense = with_gradient(dense_contrast, p, q, scale, valid)
    for actual, expected in zip(ours, dense, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-13)


def test_two_one_hot_positions_by_hand() -> None:
    # Each anchor sees its positive with e^s = 2 and two negatives with e^0 = 1: -log(2 / 4).
    one_hot = torch.eye(2)[None]
    loss, grad_p, grad_q = with_gradient(pixel_contrast, one_hot, one_hot, math.log(2))
    assert loss.item() == pytest.approx(math.log(2))
    # Own softmax weights 1/2, 1/4, 1/4 and the same seen as another's column, over 4 anchors.
    expected = math.log(2) / 4 * torch.tensor([[[-1.0, 1.0], [1.0, -1.0]]])
    torch.testing.assert_close(grad_p, expected)
    torch.testing.assert_close(grad_q, expected)


def test_rows_that_are_all_alike_cost_log_of_their_number_less_one() -> None:
    uniform = torch.full((1, 5, 4), 0.25)
    assert pixel_contrast(uniform, uniform, 20.0).item() == pytest.approx(math.log(9))


def test_a_single_position_has_no_negative_and_costs_nothing() -> None:
    loss, grad_p, grad_q = with_gradient(pixel_contrast, probabilities(1, 1, 3), probabilities(1, 1, 3, seed=1), 20.0)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert max(grad_p.abs().max().item(), grad_q.abs().max().item()) < 1e-12


@pytest.mark.parametrize("num_classes", [1, 2, 19])
@pytest.mark.parametrize("num_images", [1, 3])
def test_equals_the_dense_formula(num_images: int, num_classes: int) -> None:
    assert_matches_dense(probabilities(num_images, 7, num_classes), probabilities(num_images, 7, num_classes, seed=1))


def test_equals_the_dense_formula_over_several_blocks_of_rows() -> None:
    num_rows = BLOCK_ROWS + 37  # 2N is no multiple of the block, and a block straddles both views
    assert_matches_dense(probabilities(3, num_rows, 5), probabilities(3, num_rows, 5, seed=1))


def test_equals_the_dense_formula_for_nearly_one_hot_rows() -> None:
    assert_matches_dense(probabilities(3, 31, 19, sharpness=30), probabilities(3, 31, 19, seed=1, sharpness=30))


def test_equals_the_dense_formula_at_the_largest_scale() -> None:
    assert_matches_dense(probabilities(1, 9, 19, sharpness=5), probabilities(1, 9, 19, seed=1, sharpness=5), scale=80.0)


@pytest.mark.parametrize("sharpness", [1.0, 30.0])
def test_fp32_errs_no_more_than_the_dense_formula_in_fp32(sharpness: float) -> None:
    p = probabilities(3, 200, 19, sharpness=sharpness, dtype=torch.float32)
    q = probabilities(3, 200, 19, seed=1, sharpness=sharpness, dtype=torch.float32)
    exact = with_gradient(dense_contrast, p.double(), q.double(), 20.0)
    dense = with_gradient(dense_contrast, p, q, 20.0)
    ours = with_gradient(pixel_contrast, p, q, 20.0)
    for actual, eager, truth in zip(ours, dense, exact, strict=True):
        margin = 8 * torch.finfo(torch.float32).eps * truth.abs().max()
        assert (actual - truth).abs().max() <= 2 * (eager - truth).abs().max() + margin


def test_gradcheck_with_a_mask() -> None:
    valid = torch.tensor([[True, False, True], [True, True, True], [False, True, True]])
    p, q = probabilities(3, 3, 4).requires_grad_(), probabilities(3, 3, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: pixel_contrast(a, b, 7.0, valid=valid), (p, q))


def test_non_contiguous_inputs_give_the_same_numbers() -> None:
    p, q = probabilities(3, 11, 5), probabilities(3, 11, 5, seed=1)
    strided = p.transpose(1, 2).contiguous().transpose(1, 2)
    assert not strided.is_contiguous()
    for actual, expected in zip(
        with_gradient(pixel_contrast, strided, q), with_gradient(pixel_contrast, p, q), strict=True
    ):
        assert torch.equal(actual, expected)


def test_logits_are_softmaxed_and_receive_the_gradient() -> None:
    logits = [torch.randn(3, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in (0, 1)]
    ours = with_gradient(lambda a, b: pixel_contrast(a, b, 20.0, from_logits=True), *logits)
    dense = with_gradient(lambda a, b: dense_contrast(a.softmax(-1), b.softmax(-1), 20.0), *logits)
    for actual, expected in zip(ours, dense, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-13)


def test_bfloat16_logits_are_computed_in_fp32() -> None:
    logits = [(3 * torch.randn(1, 40, 19, generator=torch.Generator().manual_seed(s))).bfloat16() for s in (0, 1)]
    loss, grad, _ = with_gradient(lambda a, b: pixel_contrast(a, b, 20.0, from_logits=True), *logits)
    exact = pixel_contrast(logits[0].double(), logits[1].double(), 20.0, from_logits=True)
    assert loss.dtype == torch.float32
    assert grad.dtype == torch.bfloat16
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)


def test_bfloat16_probabilities_are_compared_in_fp32() -> None:
    p, q = (probabilities(1, 40, 19, seed=seed, dtype=torch.bfloat16) for seed in (0, 1))
    loss, grad, _ = with_gradient(pixel_contrast, p, q)
    assert loss.dtype == torch.float32
    assert grad.dtype == torch.bfloat16
    assert loss.item() == pytest.approx(dense_contrast(p.double(), q.double(), 20.0).item(), rel=1e-5)


def test_rows_left_out_take_no_part() -> None:
    valid = torch.tensor([[True, False, True, True, False], [False, False, True, False, True], [True] * 5])
    p, q = probabilities(3, 5, 3), probabilities(3, 5, 3, seed=1)
    assert_matches_dense(p, q, 7.0, valid)
    _, grad_p, grad_q = with_gradient(pixel_contrast, p, q, 7.0, valid=valid)
    assert not grad_p[~valid].any()
    assert not grad_q[~valid].any()


def test_an_image_without_valid_rows_costs_nothing_but_counts_in_the_mean() -> None:
    p, q = probabilities(3, 4, 5), probabilities(3, 4, 5, seed=1)
    valid = torch.tensor([[True] * 4, [False] * 4, [True] * 4])
    loss, grad_p, _ = with_gradient(pixel_contrast, p, q, 7.0, valid=valid)
    assert loss.item() == pytest.approx(dense_contrast(p[::2], q[::2], 7.0).item() * 2 / 3)
    assert not grad_p[1].any()


def test_no_valid_row_at_all_gives_zero_and_zero_gradients() -> None:
    valid = torch.zeros(3, 4, dtype=torch.bool)
    loss, grad_p, grad_q = with_gradient(
        pixel_contrast, probabilities(3, 4, 3), probabilities(3, 4, 3, seed=1), valid=valid
    )
    assert loss.item() == 0
    assert not grad_p.any()
    assert not grad_q.any()


def test_one_valid_row_has_no_negative_and_costs_nothing() -> None:
    valid = torch.tensor([[False, True, False]])
    loss, grad_p, _ = with_gradient(
        pixel_contrast, probabilities(1, 3, 3), probabilities(1, 3, 3, seed=1), 7.0, valid=valid
    )
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert grad_p.abs().max() < 1e-12


def test_the_gradient_is_scaled_by_what_follows() -> None:
    p, q = probabilities(1, 5, 3), probabilities(1, 5, 3, seed=1)
    _, once, _ = with_gradient(pixel_contrast, p, q)
    _, thrice, _ = with_gradient(lambda a, b: 3 * pixel_contrast(a, b), p, q)
    torch.testing.assert_close(thrice, 3 * once)


def test_two_runs_agree_bit_for_bit() -> None:
    p, q = (probabilities(3, 300, 19, seed=seed, dtype=torch.float32) for seed in (0, 1))
    first, second = with_gradient(pixel_contrast, p, q), with_gradient(pixel_contrast, p, q)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that any operation returned."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor):
                self.largest = max(self.largest, tensor.numel())
        return result


def test_no_tensor_is_larger_than_a_block_of_rows() -> None:
    num_rows, num_classes = 4 * BLOCK_ROWS, 3
    p, q = probabilities(1, num_rows, num_classes), probabilities(1, num_rows, num_classes, seed=1)
    with LargestTensor() as ours:
        with_gradient(pixel_contrast, p, q)
    with LargestTensor() as dense:
        with_gradient(dense_contrast, p, q, 20.0)
    assert dense.largest == (2 * num_rows) ** 2
    assert ours.largest == BLOCK_ROWS * 2 * num_rows


def test_messages_name_the_argument_and_what_came() -> None:
    p = probabilities(2, 4, 3)
    with pytest.raises(ValueError, match=r"p must have shape \[any, any, any\], got \[4, 3\]"):
        pixel_contrast(p[0], p[0])
    with pytest.raises(ValueError, match=r"q must have shape \[2, 4, 3\], got \[2, 3, 3\]"):
        pixel_contrast(p, p[:, :3])
    with pytest.raises(TypeError, match=r"q must be torch\.float64, got torch\.float32"):
        pixel_contrast(p, p.float())
    with pytest.raises(TypeError, match=r"p must be torch\.float64 or .*, got torch\.int64"):
        pixel_contrast(p.long(), p.long())
    with pytest.raises(ValueError, match=r"valid must have shape \[2, 4\], got \[2, 3\]"):
        pixel_contrast(p, p, valid=torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"valid must be torch\.bool, got torch\.float32"):
        pixel_contrast(p, p, valid=torch.ones(2, 4))
    for scale in (0.0, -1.0, 80.5, math.nan):
        with pytest.raises(ValueError, match=f"scale must be above 0 and at most 80, got {scale}"):
            pixel_contrast(p, p, scale)
    with pytest.raises(ValueError, match='precision must be "fp32" or "fast", got \'fp16\''):
        pixel_contrast(p, p, precision="fp16")  # type: ignore[arg-type]


def test_a_tensor_on_another_device_is_named() -> None:
    p = probabilities(1, 2, 3)
    with pytest.raises(ValueError, match="q is on meta, the other arguments on cpu"):
        pixel_contrast(p, p.to("meta"))
