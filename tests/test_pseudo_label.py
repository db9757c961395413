"""pseudo_label and argmax_confusion: against interpolation of the whole map, crops of it, and counts by numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastuda_kernels.pseudo_label import argmax_confusion, pseudo_label


def random_logits(*shape: int, seed: int = 0) -> Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def interpolated(logits: Tensor, size: tuple[int, int], align_corners: bool = True) -> Tensor:
    return F.interpolate(logits, size, mode="bilinear", align_corners=align_corners)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (4, 6), (17, 23), (3, 40), (2, 3)])
def test_the_whole_view_equals_interpolation_softmax_and_argmax(size: tuple[int, int], align_corners: bool) -> None:
    logits = random_logits(3, 7, 4, 6)
    label, confidence = pseudo_label(logits, size, align_corners=align_corners)
    expected, expected_label = interpolated(logits, size, align_corners).softmax(1).max(1)
    assert label.dtype == torch.uint8
    assert torch.equal(label.long(), expected_label)
    torch.testing.assert_close(confidence, expected)


def test_labels_and_confidence_of_one_position_by_hand() -> None:
    logits = torch.tensor([[0.2, 0.5, 0.3]]).log().view(1, 3, 1, 1)
    label, confidence = pseudo_label(logits, (2, 3))
    assert label.tolist() == [[[1, 1, 1], [1, 1, 1]]]
    assert confidence.flatten().tolist() == pytest.approx([0.5] * 6)


@pytest.mark.parametrize("align_corners", [True, False])
def test_a_crop_at_its_own_size_is_cut_from_the_whole_map(align_corners: bool) -> None:
    logits = random_logits(3, 7, 4, 6)
    whole_confidence, whole_label = interpolated(logits, (17, 23), align_corners).softmax(1).max(1)
    # In the view's middle, at its end, and at its start.
    for corners in ([(3, 5), (9, 14), (0, 2)], [(0, 0), (9, 0), (4, 14)]):
        boxes = torch.tensor([[float(top), float(left), 8.0, 9.0] for top, left in corners])
        label, confidence = pseudo_label(logits, (8, 9), view_size=(17, 23), boxes=boxes, align_corners=align_corners)
        for image, (top, left) in enumerate(corners):
            window = (image, slice(top, top + 8), slice(left, left + 9))
            assert torch.equal(label[image].long(), whole_label[window])
            torch.testing.assert_close(confidence[image], whole_confidence[window])


@pytest.mark.parametrize("align_corners", [True, False])
def test_the_box_of_the_whole_view_is_the_whole_view(align_corners: bool) -> None:
    logits = random_logits(1, 7, 4, 6)
    boxes = torch.tensor([[0.0, 0.0, 17.0, 23.0]])
    boxed = pseudo_label(logits, (17, 23), view_size=(17, 23), boxes=boxes, align_corners=align_corners)
    assert torch.equal(boxed[1], pseudo_label(logits, (17, 23), align_corners=align_corners)[1])


def test_pixel_centres_of_a_shrunk_crop_by_hand() -> None:
    # A view 5 pixels wide over two positions, class 1 rising from 0 to 4: its logit is the pixel's number.
    # Shrinking pixels 0 to 3 to two puts their centres at 0.5 and 2.5; class 0 stays at 1.
    logits = torch.tensor([[1.0, 1.0], [0.0, 4.0]]).view(1, 2, 1, 2)
    boxes = torch.tensor([[0.0, 0.0, 1.0, 4.0]])
    label, confidence = pseudo_label(logits, (1, 2), view_size=(1, 5), boxes=boxes)
    assert label.tolist() == [[[0, 1]]]
    assert confidence.flatten().tolist() == pytest.approx([sigmoid(0.5), sigmoid(1.5)])


def test_an_enlarged_crop_stops_at_the_border_of_the_view() -> None:
    # One pixel enlarged to two: centres at -0.25 and 0.25, and left of the first pixel nothing changes any more.
    logits = torch.tensor([[0.0, 0.0], [2.0, 6.0]]).view(1, 2, 1, 2)
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    _, confidence = pseudo_label(logits, (1, 2), view_size=(1, 5), boxes=boxes)
    assert confidence.flatten().tolist() == pytest.approx([sigmoid(2.0), sigmoid(2.25)])


def test_pixel_centres_without_aligned_corners_by_hand() -> None:
    # Two positions under eight pixels have their centres at pixels 1.5 and 5.5: class 1 rises by 1 a pixel between
    # them, and stays as it is outside. Pixels 0 to 5 made three have their centres at 0.5, 2.5 and 4.5.
    logits = torch.tensor([[1.0, 1.0], [0.0, 4.0]]).view(1, 2, 1, 2)
    boxes = torch.tensor([[0.0, 0.0, 1.0, 6.0]])
    _, confidence = pseudo_label(logits, (1, 3), view_size=(1, 8), boxes=boxes, align_corners=False)
    assert confidence.flatten().tolist() == pytest.approx([sigmoid(1.0), sigmoid(0.0), sigmoid(2.0)])
    _, confidence = pseudo_label(logits, (1, 8), align_corners=False)
    rising = [0.0, 0.0, 0.5, 1.5, 2.5, 3.5, 4.0, 4.0]
    assert confidence.flatten().tolist() == pytest.approx([sigmoid(abs(value - 1)) for value in rising])


@pytest.mark.parametrize("align_corners", [True, False])
def test_flip_mirrors_the_marked_images_alone(align_corners: bool) -> None:
    logits = random_logits(3, 7, 4, 6)
    boxes = torch.tensor([[3.0, 5.0, 8.0, 9.0], [9.0, 14.0, 6.0, 4.0], [1.0, 2.0, 12.0, 20.0]])
    settings: dict[str, Any] = {"view_size": (17, 23), "boxes": boxes, "align_corners": align_corners}
    label, confidence = pseudo_label(logits, (8, 9), **settings)
    flipped = pseudo_label(logits, (8, 9), **settings, flip=torch.tensor([False, True, False]))
    assert torch.equal(flipped[0], torch.stack([label[0], label[1].flip(-1), label[2]]))
    assert torch.equal(flipped[1], torch.stack([confidence[0], confidence[1].flip(-1), confidence[2]]))
    assert not any(torch.equal(one, one.flip(-1)) for one in label)


def test_two_heads_are_averaged_after_the_softmax_by_hand() -> None:
    # 0.6 and 0.1 average to 0.35, so the second class wins although the main head prefers the first.
    main = (torch.tensor([0.6, 0.4]).log() + 5).view(1, 2, 1, 1)
    auxiliary = torch.tensor([0.1, 0.9]).log().view(1, 2, 1, 1)
    label, confidence = pseudo_label(main, (1, 1), auxiliary=auxiliary)
    assert label.item() == 1
    assert confidence.item() == pytest.approx(0.65)


@pytest.mark.parametrize("align_corners", [True, False])
def test_both_heads_are_cropped_alike(align_corners: bool) -> None:
    main, auxiliary = random_logits(1, 7, 4, 6), random_logits(1, 7, 4, 6, seed=1)
    heads = [interpolated(head, (17, 23), align_corners).softmax(1) for head in (main, auxiliary)]
    both = (heads[0] + heads[1]) / 2
    expected, expected_label = both[:, :, 3:11, 5:14].max(1)
    label, confidence = pseudo_label(
        main,
        (8, 9),
        auxiliary=auxiliary,
        view_size=(17, 23),
        boxes=torch.tensor([[3.0, 5.0, 8.0, 9.0]]),
        align_corners=align_corners,
    )
    assert torch.equal(label.long(), expected_label)
    torch.testing.assert_close(confidence, expected)


def test_bfloat16_logits_are_interpolated_in_fp32() -> None:
    logits = random_logits(1, 7, 4, 6).bfloat16()
    _, confidence = pseudo_label(logits, (17, 23))
    assert confidence.dtype == torch.float32
    torch.testing.assert_close(confidence, pseudo_label(logits.float(), (17, 23))[1], rtol=0, atol=0)


def test_confusion_by_hand() -> None:
    # One position: every pixel is predicted as class 2. 255 and 7 are no classes of three.
    logits = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1)
    labels = torch.tensor([[[0, 2, 2], [255, 7, 1]]], dtype=torch.uint8)
    assert argmax_confusion(logits, labels).tolist() == [[0, 0, 1], [0, 0, 1], [0, 0, 2]]


@pytest.mark.parametrize("align_corners", [True, False])
def test_confusion_equals_counts_by_numpy(align_corners: bool) -> None:
    logits = random_logits(3, 5, 4, 6)
    labels = torch.randint(0, 8, (3, 17, 23), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    labels[:, :3] = 255
    expected = np.zeros((5, 5), np.int64)
    predicted = interpolated(logits, (17, 23), align_corners).argmax(1).numpy()
    for truth, guess in zip(labels.numpy().ravel(), predicted.ravel(), strict=True):
        if truth < 5:
            expected[truth, guess] += 1
    confusion = argmax_confusion(logits, labels, align_corners=align_corners)
    assert confusion.dtype == torch.int64
    assert np.array_equal(confusion.numpy(), expected)


def test_confusion_leaves_out_another_ignore_index() -> None:
    logits = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)
    labels = torch.tensor([[[0, 1, 1]]], dtype=torch.uint8)
    assert argmax_confusion(logits, labels, ignore_index=1).tolist() == [[0, 1], [0, 0]]


def test_messages_name_the_argument_and_what_came() -> None:
    logits, boxes = random_logits(2, 7, 4, 6), torch.zeros(2, 4)
    with pytest.raises(ValueError, match=r"logits must have shape \[any, any, any, any\], got \[7, 4, 6\]"):
        pseudo_label(logits[0], (8, 9))
    with pytest.raises(ValueError, match=r"auxiliary must have shape \[2, 7, 4, 6\], got \[2, 6, 4, 6\]"):
        pseudo_label(logits, (8, 9), auxiliary=logits[:, 1:])
    with pytest.raises(ValueError, match=r"boxes must have shape \[2, 4\], got \[1, 4\]"):
        pseudo_label(logits, (8, 9), view_size=(17, 23), boxes=boxes[:1])
    with pytest.raises(ValueError, match="boxes are in pixels of the view: give view_size"):
        pseudo_label(logits, (8, 9), boxes=boxes)
    with pytest.raises(TypeError, match=r"flip must be torch\.bool, got torch\.float32"):
        pseudo_label(logits, (8, 9), flip=torch.zeros(2))
    with pytest.raises(TypeError, match=r"labels must be torch\.uint8, got torch\.int64"):
        argmax_confusion(logits, torch.zeros(2, 8, 9, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"labels must have shape \[2, any, any\], got \[1, 8, 9\]"):
        argmax_confusion(logits, torch.zeros(1, 8, 9, dtype=torch.uint8))
