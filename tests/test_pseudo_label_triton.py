"""pseudo_label's and argmax_confusion's Triton kernels: held to the reference in fp64, GPU or interpreter."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fastuda_kernels.operators import INTERPRETED
from fastuda_kernels.pseudo_label import argmax_confusion, pseudo_label
from fastuda_kernels.pseudo_label import triton as fused
from fastuda_kernels.pseudo_label.reference import confusion_of_upsampled, label_of_upsampled

EPS = torch.finfo(torch.float32).eps
BOXES = torch.tensor([[3.0, 5.0, 8.0, 9.0], [0.0, 0.0, 17.0, 23.0], [11.5, 2.25, 4.5, 20.0]])


def maps(*shape: int, seed: int = 0, sharpness: float = 2.0, device: torch.device) -> Tensor:
    return sharpness * torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device)


def held_to_reference(
    logits: Tensor,
    size: tuple[int, int],
    auxiliary: Tensor | None = None,
    view_size: tuple[int, int] | None = None,
    boxes: Tensor | None = None,
    flip: Tensor | None = None,
    align_corners: bool = True,
) -> tuple[Tensor, Tensor]:
    """Label and confidence; labels may differ from fp64's only where two classes tie within rounding."""
    label, confidence = fused.pseudo_label(logits, size, auxiliary, view_size, boxes, flip, align_corners)
    assert (label.dtype, confidence.dtype) == (torch.uint8, torch.float32)
    wide = [None if t is None else t.cpu().double() for t in (logits, auxiliary)]
    assert wide[0] is not None
    place = (view_size, *(None if t is None else t.cpu() for t in (boxes, flip)), align_corners)
    exact_label, exact_confidence = label_of_upsampled(wide[0], size, wide[1], *place)
    largest = max(1.0, float(logits.abs().max()))
    torch.testing.assert_close(confidence.cpu(), exact_confidence, rtol=0, atol=8 * EPS * largest)
    differs = label.cpu() != exact_label
    if differs.any():
        heads = [head for head in wide if head is not None]
        planes = torch.stack([_planes(head, size, *place) for head in heads]).mean(0)
        ours = planes.gather(1, label.cpu().long()[:, None])[:, 0]
        assert (exact_confidence - ours)[differs].max() <= 8 * EPS * largest
    return label, confidence


def _planes(logits: Tensor, size: tuple[int, int], *place: Any) -> Tensor:
    """Probability of each class at each pixel, fp64."""
    from fastuda_kernels.pseudo_label import reference

    rows, columns = reference._weights(logits, size, *place)
    return reference._sample(logits, rows, columns).softmax(1)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (4, 6), (3, 40), (65, 65)])
def test_whole_views(size: tuple[int, int], align_corners: bool, device: torch.device) -> None:
    held_to_reference(maps(3, 19, 4, 6, device=device), size, align_corners=align_corners)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (17, 23), (32, 48)])
def test_whole_views_without_aligned_corners_are_torchs(size: tuple[int, int], device: torch.device) -> None:
    logits = maps(3, 19, 4, 6, device=device)
    _, confidence = fused.pseudo_label(logits, size, None, None, None, None, False)
    full = F.interpolate(logits.double(), size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(confidence.double(), full.softmax(1).amax(1), rtol=0, atol=8 * EPS * 8)


@pytest.mark.parametrize("num_classes", [1, 2, 40])
def test_other_numbers_of_classes(num_classes: int, device: torch.device) -> None:
    held_to_reference(maps(1, num_classes, 4, 6, device=device), (9, 11))


def test_logits_of_a_single_position(device: torch.device) -> None:
    held_to_reference(maps(3, 5, 1, 1, device=device), (3, 4))
    held_to_reference(maps(3, 5, 1, 1, device=device), (3, 4), align_corners=False)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("heads", [1, 2])
def test_crops(heads: int, flipped: bool, align_corners: bool, device: torch.device) -> None:
    auxiliary = maps(3, 7, 4, 6, seed=1, device=device) if heads == 2 else None
    flip = torch.tensor([True, False, True], device=device) if flipped else None
    logits = maps(3, 7, 4, 6, device=device)
    held_to_reference(logits, (10, 13), auxiliary, (17, 23), BOXES.to(device), flip, align_corners)


@given(
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.tuples(st.integers(2, 40), st.integers(2, 40)),
    st.lists(st.floats(0.05, 0.95), min_size=4, max_size=4),
    st.booleans(),
)
def test_any_crop(
    low: tuple[int, int], size: tuple[int, int], view: tuple[int, int], box: list[float], align_corners: bool
) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    top, left = box[0] * view[0], box[1] * view[1]
    boxes = torch.tensor([[top, left, box[2] * (view[0] - top), box[3] * (view[1] - left)]], device=device)
    held_to_reference(maps(1, 19, *low, device=device), size, None, view, boxes, align_corners=align_corners)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_logits_in_either_memory_format(dtype: torch.dtype, device: torch.device) -> None:
    logits = maps(3, 19, 4, 6, device=device).to(dtype)
    plain = held_to_reference(logits, (17, 23))
    strided = fused.pseudo_label(logits.to(memory_format=torch.channels_last), (17, 23), None, None, None, None, True)
    assert all(torch.equal(a, b) for a, b in zip(strided, plain, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="numpy's arg-max of NaN is not a GPU's: needs a CUDA device")
def test_nan_gives_no_label_beyond_the_classes(device: torch.device) -> None:
    logits = torch.full((1, 5, 2, 2), torch.nan, device=device)
    label, _ = fused.pseudo_label(logits, (3, 3), None, None, None, None, True)
    assert (label < 5).all()
    assert fused.argmax_confusion(logits, label, 255, True).sum() == 9


def test_ties_go_to_the_lowest_class(device: torch.device) -> None:
    label, confidence = fused.pseudo_label(torch.zeros(1, 5, 2, 2, device=device), (3, 3), None, None, None, None, True)
    assert not label.any()
    assert confidence.flatten().tolist() == pytest.approx([0.2] * 9)


@pytest.mark.usefixtures("poisoned")
def test_nothing_unwritten_is_read_and_everything_is_written(device: torch.device) -> None:
    held_to_reference(maps(3, 19, 4, 6, device=device), (17, 23))
    held_to_reference(maps(3, 19, 4, 6, device=device), (17, 23), align_corners=False)
    for align_corners in (True, False):
        test_counts_equal_the_references(19, align_corners, device)


@pytest.mark.usefixtures("kernels_everywhere")
def test_the_public_function_passes_everything_on(device: torch.device) -> None:
    logits, auxiliary = (maps(3, 7, 4, 6, seed=seed, device=device).requires_grad_() for seed in (0, 1))
    boxes, flip = BOXES.double().to(device), torch.tensor([True, False, True], device=device)
    ours = pseudo_label(logits, (10, 13), auxiliary=auxiliary, view_size=(17, 23), boxes=boxes, flip=flip)
    expected = held_to_reference(logits.detach(), (10, 13), auxiliary.detach(), (17, 23), boxes.float(), flip)
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))
    ours = pseudo_label(logits, (10, 13), view_size=(17, 23), boxes=boxes, align_corners=False)
    expected = held_to_reference(logits.detach(), (10, 13), None, (17, 23), boxes.float(), None, False)
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))
    labels = torch.zeros(3, 9, 9, dtype=torch.uint8, device=device)
    assert argmax_confusion(logits, labels, ignore_index=1).sum() == 3 * 81
    assert argmax_confusion(logits, labels, ignore_index=0).sum() == 0
    expected = confusion_of_upsampled(logits.detach().cpu(), labels.cpu(), 255, False)
    assert torch.equal(argmax_confusion(logits, labels, align_corners=False).cpu(), expected)
    assert not torch.equal(argmax_confusion(logits, labels).cpu(), expected)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("num_classes", [1, 19, 31, 32, 40])
def test_counts_equal_the_references(num_classes: int, align_corners: bool, device: torch.device) -> None:
    # 31 classes still fit the histogram of a program, 32 do not.
    logits = maps(3, num_classes, 4, 6, device=device)
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, num_classes + 2, (3, 17, 23), generator=generator)
    labels[labels == num_classes] = 255
    labels = labels.to(torch.uint8).to(device)
    counts = fused.argmax_confusion(logits, labels, 255, align_corners)
    assert counts.dtype == torch.int64
    assert torch.equal(counts.cpu(), confusion_of_upsampled(logits.cpu().double(), labels.cpu(), 255, align_corners))
    assert counts.sum() == ((labels != 255) & (labels < num_classes)).sum()


def test_counts_of_a_single_position_and_of_labels_smaller_than_the_logits(device: torch.device) -> None:
    labels = torch.randint(0, 5, (3, 3, 4), generator=torch.Generator().manual_seed(1)).to(torch.uint8).to(device)
    for low, align_corners in itertools.product(((1, 1), (1, 6), (7, 9)), (True, False)):
        logits = maps(3, 5, *low, device=device)
        expected = confusion_of_upsampled(logits.cpu().double(), labels.cpu(), 255, align_corners)
        assert torch.equal(fused.argmax_confusion(logits, labels, 255, align_corners).cpu(), expected)


def test_an_ignored_class_is_not_counted(device: torch.device) -> None:
    labels = torch.tensor([[[0, 1, 2, 1]]], dtype=torch.uint8, device=device)
    counts = fused.argmax_confusion(maps(1, 3, 2, 2, device=device), labels, 1, True)
    assert counts.sum(1).tolist() == [1, 0, 1]


def test_the_operators_are_sound(device: torch.device) -> None:
    logits = maps(1, 3, 2, 3, device=device)
    boxes, flip = torch.tensor([[0.0, 1.0, 3.0, 4.0]], device=device), torch.tensor([True], device=device)
    torch.library.opcheck(fused.label_of_upsampled, (logits, 4, 5, None, 4, 5, None, None, True))
    torch.library.opcheck(fused.label_of_upsampled, (logits, 4, 5, logits, 7, 9, boxes, flip, False))
    labels = torch.zeros(1, 4, 5, dtype=torch.uint8, device=device)
    for align_corners in (True, False):
        torch.library.opcheck(fused.confusion_of_upsampled, (logits, labels, 255, align_corners))


def test_compiles_without_a_graph_break(device: torch.device) -> None:
    logits = maps(1, 3, 2, 3, device=device)

    def both(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        label, confidence = fused.pseudo_label(z, (5, 6), None, None, None, None, True)
        _, other_confidence = fused.pseudo_label(z, (5, 6), None, None, None, None, False)
        counts = fused.argmax_confusion(z, label, 255, True) + fused.argmax_confusion(z, label, 255, False)
        return label, confidence + other_confidence, counts

    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    assert all(torch.equal(a, b) for a, b in zip(compiled(logits), both(logits), strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="needs a CUDA device")
class TestGpu:
    device = torch.device("cuda")

    def test_the_sizes_of_the_paper(self) -> None:
        logits = maps(2, 19, 81, 161, device=self.device).bfloat16().to(memory_format=torch.channels_last)
        boxes = torch.tensor([[10.0, 300.0, 400.0, 420.0], [0.0, 0.0, 640.0, 800.0]], device=self.device)
        held_to_reference(logits, (512, 512), None, (640, 1280), boxes)
        held_to_reference(logits, (512, 512), None, (640, 1280), boxes, align_corners=False)

    @pytest.mark.parametrize("align_corners", [True, False])
    def test_counts_of_full_size_labels(self, align_corners: bool) -> None:
        logits = maps(2, 19, 81, 161, device=self.device)
        generator = torch.Generator().manual_seed(0)
        labels = torch.randint(0, 19, (2, 1024, 2048), generator=generator).to(torch.uint8).to(self.device)
        counts = fused.argmax_confusion(logits, labels, 255, align_corners)
        reference = confusion_of_upsampled(logits.double(), labels, 255, align_corners)
        assert counts.sum() == labels.numel()
        assert (counts - reference).abs().sum() <= 1e-4 * labels.numel()  # ties within rounding

    def test_a_captured_graph_replays_the_same_labels(self) -> None:
        logits = maps(2, 19, 81, 161, device=self.device)
        fused.pseudo_label(logits, (512, 512), None, None, None, None, True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = fused.pseudo_label(logits, (512, 512), None, None, None, None, True)
        logits.copy_(maps(2, 19, 81, 161, seed=5, device=self.device))
        graph.replay()
        again = fused.pseudo_label(logits, (512, 512), None, None, None, None, True)
        assert all(torch.equal(a, b) for a, b in zip(captured, again, strict=True))
