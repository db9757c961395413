"""upsample_cross_entropy: value and gradient against bilinear weights and cross-entropy written out in fp64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from formulas import dense_cross_entropy
from torch import Tensor

from fastuda_kernels.upsample_cross_entropy import upsample_cross_entropy


def case(height: int, width: int, low: tuple[int, int] = (3, 4), num_classes: int = 5) -> tuple[Tensor, Tensor]:
    """fp64 logits [3, C, *low] and uint8 labels [3, height, width], about one in six ignored, never all."""
    generator = torch.Generator().manual_seed(height * 100 + width)
    logits = 3 * torch.randn(3, num_classes, *low, dtype=torch.float64, generator=generator)
    labels = torch.randint(0, num_classes + 1, (3, height, width), generator=generator)
    labels[labels == num_classes] = 255
    labels[0, 0, 0] = 1
    return logits, labels.to(torch.uint8)


def with_gradient(logits: Tensor, loss: Tensor) -> tuple[Tensor, Tensor]:
    (gradient,) = torch.autograd.grad(loss, logits)
    return loss.detach(), gradient


def assert_same(logits: Tensor, actual: Tensor, expected: Tensor) -> None:
    for ours, dense in zip(with_gradient(logits, actual), with_gradient(logits, expected), strict=True):
        torch.testing.assert_close(ours, dense, rtol=1e-10, atol=1e-13)


def test_one_position_by_hand() -> None:
    # Probabilities 1/4 and 3/4 on every pixel; classes 1, 1, 0 and one pixel ignored.
    logits = torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1).requires_grad_()
    labels = torch.tensor([[[1, 1], [0, 255]]], dtype=torch.uint8)
    loss, gradient = with_gradient(logits, upsample_cross_entropy(logits, labels))
    assert loss.item() == pytest.approx((2 * math.log(4 / 3) + math.log(4)) / 3)
    assert gradient.flatten().tolist() == pytest.approx([-1 / 12, 1 / 12])


def test_corners_are_aligned_by_hand() -> None:
    # Two positions over three pixels: the middle pixel lies halfway.
    logits = torch.tensor([[0.0, 0.0], [0.0, 2.0]]).view(1, 2, 1, 2)
    labels = torch.zeros(1, 1, 3, dtype=torch.uint8)
    expected = sum(math.log(1 + math.exp(x)) for x in (0, 1, 2)) / 3
    assert upsample_cross_entropy(logits, labels).item() == pytest.approx(expected)


def test_pixel_centres_without_aligned_corners_by_hand() -> None:
    # Two positions under four pixels lie at pixels 0.5 and 2.5; what is outside of them is as they are.
    logits = torch.tensor([[0.0, 0.0], [0.0, 4.0]]).view(1, 2, 1, 2).requires_grad_()
    labels = torch.zeros(1, 1, 4, dtype=torch.uint8)
    loss, gradient = with_gradient(logits, upsample_cross_entropy(logits, labels, align_corners=False))
    assert loss.item() == pytest.approx(sum(math.log(1 + math.exp(x)) for x in (0, 1, 3, 4)) / 4)
    first, second, third, last = (1 / (1 + math.exp(-x)) for x in (0, 1, 3, 4))
    left, right = first + 0.75 * second + 0.25 * third, 0.25 * second + 0.75 * third + last
    assert gradient[0, 1, 0].tolist() == pytest.approx([left / 4, right / 4])


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (3, 4), (12, 16)])
def test_equals_the_dense_formula(size: tuple[int, int], align_corners: bool) -> None:
    logits, labels = case(*size)
    logits.requires_grad_()
    assert_same(
        logits,
        upsample_cross_entropy(logits, labels, align_corners=align_corners),
        dense_cross_entropy(logits, labels, labels != 255, None, align_corners),
    )


def test_logits_of_a_single_position_cover_every_pixel() -> None:
    logits, labels = case(5, 7, low=(1, 1))
    logits.requires_grad_()
    assert_same(
        logits, upsample_cross_entropy(logits, labels), dense_cross_entropy(logits, labels, labels != 255, None, True)
    )


def test_weights_and_their_divisor_by_hand() -> None:
    # Probabilities 1/4 and 3/4; weights 3, 0 and 2 on pixels that count, and one on a pixel that does not.
    logits = torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1).requires_grad_()
    labels = torch.tensor([[[1, 1], [0, 255]]], dtype=torch.uint8)
    weight = torch.tensor([[[3.0, 0.0], [2.0, 5.0]]])
    loss, gradient = with_gradient(logits, upsample_cross_entropy(logits, labels, weight=weight))
    assert loss.item() == pytest.approx((3 * math.log(4 / 3) + 2 * math.log(4)) / 3)
    assert gradient.flatten().tolist() == pytest.approx([(3 / 4 - 2 * 3 / 4) / 3, -(3 / 4 - 2 * 3 / 4) / 3])


def test_a_weighted_loss_is_daformers_but_for_the_ignored_pixels_in_its_divisor() -> None:
    logits, labels = case(5, 7)
    weight = torch.rand(labels.shape, generator=torch.Generator().manual_seed(1))
    full = F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=False)
    released = (weight * F.cross_entropy(full, labels.long(), ignore_index=255, reduction="none")).mean()
    ours = upsample_cross_entropy(logits, labels, weight=weight, align_corners=False)
    torch.testing.assert_close(ours * (labels != 255).double().mean(), released)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_pixels_that_do_not_count_may_have_any_weight(value: float) -> None:
    logits, labels = case(5, 7)
    logits.requires_grad_()
    mask = torch.rand(labels.shape, generator=torch.Generator().manual_seed(1)) < 0.4
    counted = mask & (labels != 255)
    weight = torch.rand(labels.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    loss = upsample_cross_entropy(logits, labels, weight=torch.where(counted, weight, value), mask=mask)
    assert_same(logits, loss, dense_cross_entropy(logits, labels, counted, weight, True))


def test_no_gradient_reaches_a_weight_and_its_type_is_not_the_losss() -> None:
    logits, labels = case(5, 7)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        weight = torch.ones(labels.shape, dtype=dtype, requires_grad=True)
        loss = upsample_cross_entropy(logits.float().requires_grad_(), labels, weight=weight)
        assert loss.dtype == torch.float32
        loss.backward()
        assert weight.grad is None
        assert not upsample_cross_entropy(logits, labels, weight=weight).requires_grad


def test_a_weight_multiplies_pixels_and_leaves_the_divisor_alone() -> None:
    logits, labels = case(5, 7)
    logits.requires_grad_()
    weight = torch.rand(labels.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert_same(
        logits,
        upsample_cross_entropy(logits, labels, weight=weight),
        dense_cross_entropy(logits, labels, labels != 255, weight, True),
    )
    halved = upsample_cross_entropy(logits, labels, weight=torch.full(labels.shape, 0.5))
    assert halved.item() == pytest.approx(upsample_cross_entropy(logits, labels).item() / 2)


def test_a_mask_leaves_pixels_out_of_sum_and_divisor() -> None:
    logits, labels = case(5, 7)
    logits.requires_grad_()
    mask = torch.rand(labels.shape, generator=torch.Generator().manual_seed(1)) < 0.4
    assert_same(
        logits,
        upsample_cross_entropy(logits, labels, mask=mask),
        dense_cross_entropy(logits, labels, mask & (labels != 255), None, True),
    )


def test_the_mean_is_over_the_batch_and_not_over_images() -> None:
    # One pixel counts in the first image and two in the second.
    logits = torch.tensor([[0.0, 0.0], [2.0, 0.0]]).view(2, 2, 1, 1)
    labels = torch.tensor([[[1, 255]], [[1, 1]]], dtype=torch.uint8)
    expected = (math.log(2) + 2 * math.log(1 + math.exp(2))) / 3
    assert upsample_cross_entropy(logits, labels).item() == pytest.approx(expected)


@pytest.mark.parametrize("weight", [None, math.nan])
@pytest.mark.parametrize("reason", ["ignored", "masked"])
def test_nothing_to_count_gives_zero_and_a_zero_gradient(reason: str, weight: float | None) -> None:
    logits, labels = case(5, 7)
    logits.requires_grad_()
    factor = None if weight is None else torch.full(labels.shape, weight)
    if reason == "ignored":
        loss = upsample_cross_entropy(logits, torch.full_like(labels, 255), weight=factor)
    else:
        loss = upsample_cross_entropy(logits, labels, mask=torch.zeros(labels.shape, dtype=torch.bool), weight=factor)
    value, gradient = with_gradient(logits, loss)
    assert value.item() == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_another_ignore_index() -> None:
    logits, labels = case(5, 7)
    logits.requires_grad_()
    labels[labels == 255] = 3
    assert_same(
        logits,
        upsample_cross_entropy(logits, labels, ignore_index=3),
        dense_cross_entropy(logits, labels, labels != 3, None, True),
    )


def test_int64_labels_equal_uint8_labels() -> None:
    logits, labels = case(5, 7)
    assert torch.equal(upsample_cross_entropy(logits, labels.long()), upsample_cross_entropy(logits, labels))


def test_channels_last_logits_give_the_same_value_and_gradient() -> None:
    logits, labels = case(5, 7)
    strided = logits.to(memory_format=torch.channels_last).requires_grad_()
    logits.requires_grad_()
    loss, gradient = with_gradient(logits, upsample_cross_entropy(logits, labels))
    strided_loss, strided_gradient = with_gradient(strided, upsample_cross_entropy(strided, labels))
    torch.testing.assert_close(strided_loss, loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(strided_gradient, gradient, rtol=1e-10, atol=1e-14)


def test_fp32_errs_like_rounding_and_bfloat16_is_computed_in_fp32() -> None:
    logits, labels = case(12, 16)
    for dtype in (torch.float32, torch.bfloat16):
        low = logits.to(dtype)
        loss = upsample_cross_entropy(low, labels)
        assert loss.dtype == torch.float32
        exact = dense_cross_entropy(low, labels, labels != 255, None, True)
        assert loss.item() == pytest.approx(exact.item(), rel=2e-6)


def test_messages_name_the_argument_and_what_came() -> None:
    logits, labels = case(5, 7)
    with pytest.raises(ValueError, match=r"logits must have shape \[any, any, any, any\], got \[5, 3, 4\]"):
        upsample_cross_entropy(logits[0], labels)
    with pytest.raises(TypeError, match=r"logits must be .*, got torch\.int64"):
        upsample_cross_entropy(logits.long(), labels)
    with pytest.raises(ValueError, match=r"labels must have shape \[3, any, any\], got \[1, 5, 7\]"):
        upsample_cross_entropy(logits, labels[:1])
    with pytest.raises(TypeError, match=r"labels must be torch\.uint8 or torch\.int64, got torch\.int32"):
        upsample_cross_entropy(logits, labels.int())
    with pytest.raises(ValueError, match=r"weight must have shape \[3, 5, 7\], got \[3, 5, 6\]"):
        upsample_cross_entropy(logits, labels, weight=torch.ones(3, 5, 6))
    with pytest.raises(TypeError, match=r"mask must be torch\.bool, got torch\.uint8"):
        upsample_cross_entropy(logits, labels, mask=labels)
    with pytest.raises(ValueError, match="labels is on meta, the other arguments on cpu"):
        upsample_cross_entropy(logits, labels.to("meta"))
