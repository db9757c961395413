"""Class prototypes: means of logits over positions, worked out by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from fastuda.method.prototypes import prototypes

# Outputs (class 0, class 1, class 2) of the positions of a 2×2 map, row by row.
LOGITS = torch.tensor([[1.0, 0.0, 2.0], [3.0, 4.0, 2.0], [5.0, 0.0, 0.0], [7.0, 8.0, 9.0]]).T.reshape(1, 3, 2, 2)


def labels_of(*rows: list[int]) -> Tensor:
    return torch.tensor([rows], dtype=torch.uint8)


def test_a_prototype_is_the_mean_logit_vector_of_its_class() -> None:
    rows, present = prototypes(LOGITS, labels_of([0, 0], [1, 2]))
    assert rows.tolist() == [[[2.0, 2.0, 2.0], [5.0, 0.0, 0.0], [7.0, 8.0, 9.0]]]
    assert present.tolist() == [[True, True, True]]


def test_absent_classes_have_a_zero_row_and_are_not_present() -> None:
    rows, present = prototypes(LOGITS, labels_of([2, 2], [2, 2]))
    assert rows.tolist() == [[[0.0] * 3, [0.0] * 3, [4.0, 3.0, 3.25]]]
    assert present.tolist() == [[False, False, True]]


def test_ignored_positions_enter_no_prototype() -> None:
    rows, present = prototypes(LOGITS, labels_of([0, 255], [255, 0]))
    assert rows.tolist() == [[[4.0, 4.0, 5.5], [0.0] * 3, [0.0] * 3]]
    assert present.tolist() == [[True, False, False]]


def test_nothing_to_average_gives_zeros_and_no_nan() -> None:
    rows, present = prototypes(LOGITS, labels_of([255, 255], [255, 255]))
    assert not rows.any()
    assert not present.any()


def test_larger_labels_are_resized_by_their_nearest_upper_left_pixel() -> None:
    # From 4×4 to 2×2 nearest neighbour reads rows and columns 0 and 2; everything else is 1 and must not be seen.
    labels = labels_of([0, 1, 2, 1], [1, 1, 1, 1], [2, 1, 0, 1], [1, 1, 1, 1])
    rows, present = prototypes(LOGITS, labels)
    assert rows.tolist() == [[[4.0, 4.0, 5.5], [0.0] * 3, [4.0, 2.0, 1.0]]]
    assert present.tolist() == [[True, False, True]]


def test_images_have_prototypes_of_their_own() -> None:
    logits = torch.cat([LOGITS, LOGITS + 1])
    rows, present = prototypes(logits, torch.cat([labels_of([0, 0], [0, 0]), labels_of([1, 1], [1, 1])]))
    assert rows[0, 0].tolist() == [4.0, 3.0, 3.25]
    assert rows[1, 1].tolist() == [5.0, 4.0, 4.25]
    assert present.tolist() == [[True, False, False], [False, True, False]]


def test_the_gradient_reaches_each_position_by_its_share_of_the_mean() -> None:
    logits = LOGITS.clone().requires_grad_()
    rows, _ = prototypes(logits, labels_of([0, 0], [1, 255]))
    rows[0, :, 2].sum().backward()
    assert logits.grad is not None
    assert logits.grad[0, 2].tolist() == [[0.5, 0.5], [1.0, 0.0]]
    assert not logits.grad[0, :2].any()


def test_low_precision_logits_are_averaged_in_fp32() -> None:
    logits = torch.zeros(1, 1, 32, 32, dtype=torch.bfloat16)
    logits[..., :16] = 1 + 1 / 128
    rows, _ = prototypes(logits, torch.zeros(1, 32, 32, dtype=torch.uint8))
    assert rows.dtype == torch.float32
    assert rows.item() == (1 + 1 / 128) / 2
