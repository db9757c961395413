"""Boundaries, distances and scores near them, against plain loops, OpenCV and numbers computed by hand."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from fastuda.metrics import Scores
from fastuda.metrics.boundary import RADII, BoundaryMeter
from fastuda.metrics.boundary_map import boundary_band, boundary_pixels, squared_distance

CPU = torch.device("cpu")
IGNORED = 255
NUM_CLASSES = 3
NAMES = ("road", "sky", "car")

shapes = st.tuples(st.integers(1, 9), st.integers(1, 9))
seeds = st.integers(0, 2**32 - 1)


def patches(rng: np.random.Generator, shape: tuple[int, int], ignored: bool = True) -> Tensor:
    """Train ids uint8 [H, W] of a few rectangles, some of them ignored."""
    label = np.full(shape, rng.integers(NUM_CLASSES), np.uint8)
    for _ in range(4):
        top, left = rng.integers(shape[0]), rng.integers(shape[1])
        height, width = rng.integers(1, shape[0] + 1), rng.integers(1, shape[1] + 1)
        label[top : top + height, left : left + width] = rng.integers(NUM_CLASSES)
    if ignored:
        label[rng.random(shape) < 0.1] = IGNORED
    return torch.from_numpy(label)


def noisy(rng: np.random.Generator, label: Tensor) -> Tensor:
    """A prediction: the label shifted, some of it at random."""
    moved = np.roll(label.numpy(), (rng.integers(-2, 3), rng.integers(-2, 3)), (0, 1))
    wrong = rng.random(moved.shape) < 0.1
    return torch.from_numpy(np.where(wrong | (moved == IGNORED), rng.integers(0, NUM_CLASSES, moved.shape), moved)).to(
        torch.uint8
    )


Point = tuple[int, int]


def edge_points(label: NDArray[np.uint8], counted: NDArray[np.bool_]) -> set[Point]:
    height, width = label.shape
    found = set()
    for y, x in itertools.product(range(height), range(width)):
        for y2, x2 in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            inside = 0 <= y2 < height and 0 <= x2 < width
            if inside and counted[y, x] and counted[y2, x2] and label[y, x] != label[y2, x2]:
                found.add((y, x))
    return found


def nearest(point: Point, points: set[Point]) -> float:
    return min(((point[0] - y) ** 2 + (point[1] - x) ** 2 for y, x in points), default=math.inf)


@given(seeds, shapes)
def test_a_boundary_pixel_has_a_counted_neighbour_of_another_class(seed: int, shape: tuple[int, int]) -> None:
    label = patches(np.random.default_rng(seed), shape)
    found = {(y, x) for y, x in boundary_pixels(label, NUM_CLASSES).nonzero().tolist()}
    assert found == edge_points(label.numpy(), label.numpy() < NUM_CLASSES)


@given(seeds, shapes, st.sampled_from([0, 1, 2, 3, 5, 9, 12]), st.sampled_from([0.02, 0.2]))
def test_distances_are_exact_up_to_the_limit(seed: int, shape: tuple[int, int], limit: int, density: float) -> None:
    mask = torch.from_numpy(np.random.default_rng(seed).random(shape) < density)
    points = {(y, x) for y, x in mask.nonzero().tolist()}
    far = limit**2 + 1
    expected = [[min(nearest((y, x), points), far) for x in range(shape[1])] for y in range(shape[0])]
    assert squared_distance(mask, limit).tolist() == expected


@pytest.mark.parametrize("limit", [1, 9, 10, 11, 127, 128])
@pytest.mark.parametrize("point", [(0, 0), (139, 139), (70, 3)])
def test_no_limit_overflows_its_integers(limit: int, point: Point) -> None:
    mask = torch.zeros(140, 140, dtype=torch.bool)
    mask[point] = True
    steps = torch.arange(140)
    exact = (steps - point[0])[:, None] ** 2 + (steps - point[1]) ** 2
    assert torch.equal(squared_distance(mask, limit).long(), exact.clamp(max=limit**2 + 1))


@pytest.mark.parametrize("density", [0.0005, 0.01, 0.1])
def test_distances_are_opencvs(density: float) -> None:
    mask = np.random.default_rng(0).random((230, 310)) < density
    reference = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    expected = np.minimum(np.rint(reference.astype(np.float64) ** 2), 82)
    assert np.array_equal(squared_distance(torch.from_numpy(mask), 9).numpy(), expected)


def test_an_empty_mask_is_far_from_everything() -> None:
    assert (squared_distance(torch.zeros(3, 4, dtype=torch.bool), 9) == 82).all()
    with pytest.raises(ValueError, match="limit must be at least 0 pixels, got -1"):
        squared_distance(torch.zeros(3, 4, dtype=torch.bool), -1)


def test_every_map_of_a_batch_is_on_its_own() -> None:
    rng = np.random.default_rng(1)
    labels = torch.stack([patches(rng, (20, 30)) for _ in range(3)])
    mask = boundary_pixels(labels)
    for one, own_mask, distance in zip(labels, mask, squared_distance(mask, 9), strict=True):
        assert torch.equal(boundary_pixels(one), own_mask)
        assert torch.equal(squared_distance(own_mask, 9), distance)


def test_a_band_is_as_wide_as_its_radius_on_either_side() -> None:
    label = torch.zeros(4, 30, dtype=torch.uint8)
    label[:, 15:] = 1
    for radius in RADII:
        columns = boundary_band(label, radius).all(0).nonzero().flatten().tolist()
        assert columns == list(range(15 - radius, 15 + radius))
    assert torch.equal(boundary_band(label, 1), boundary_pixels(label))


def test_an_ignored_region_is_no_boundary_and_in_no_band() -> None:
    label = torch.zeros(5, 12, dtype=torch.uint8)
    label[:, 5:7] = IGNORED
    label[:, 7:] = 1
    assert not boundary_pixels(label).any()
    label[2] = 0
    label[2, 8:] = 1
    band = boundary_band(label, 9)
    assert band.any()
    assert torch.equal(band, band & (label != IGNORED))
    # Values from num_classes on are ignored as 255 is.
    other = torch.where(label == IGNORED, 2, label)
    assert torch.equal(boundary_band(other, 9, num_classes=2), band)


def test_a_radius_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="limit must be at least 0"):
        boundary_band(torch.zeros(3, 3, dtype=torch.uint8), 0)


def pairs(seed: int, count: int, shape: tuple[int, int] = (13, 17)) -> list[tuple[Tensor, Tensor]]:
    rng = np.random.default_rng(seed)
    labels = [patches(rng, shape) for _ in range(count)]
    return [(noisy(rng, label), label) for label in labels]


def measured(images: Sequence[tuple[Tensor, Tensor]], radii: Sequence[int] = RADII) -> BoundaryMeter:
    meter = BoundaryMeter(NUM_CLASSES, CPU, radii)
    for prediction, label in images:
        meter.add(prediction, label)
    return meter


@pytest.mark.parametrize("seed", range(3))
def test_trimap_scores_are_those_of_the_bands_pixels(seed: int) -> None:
    images = pairs(seed, 3)
    found = measured(images).result(NAMES)
    for radius in RADII:
        confusion = np.zeros((NUM_CLASSES, NUM_CLASSES), np.int64)
        for prediction, label in images:
            points = edge_points(label.numpy(), label.numpy() < NUM_CLASSES)
            for y, x in itertools.product(*map(range, label.shape)):
                if label[y, x] != IGNORED and nearest((y, x), points) <= (radius - 1) ** 2:
                    confusion[label[y, x], prediction[y, x]] += 1
        assert found.trimap[radius] == Scores.of(confusion, NAMES, "full")


def test_a_band_as_wide_as_the_image_is_the_whole_image() -> None:
    images = pairs(5, 4)
    confusion = np.zeros((NUM_CLASSES, NUM_CLASSES), np.int64)
    for prediction, label in images:
        counted = label.numpy() != IGNORED
        np.add.at(confusion, (label.numpy()[counted], prediction.numpy()[counted]), 1)
    subsets = {"ground": ("road", "car")}
    found = measured(images, (2, 40)).result(NAMES, "released", subsets).trimap
    assert found[40] == Scores.of(confusion, NAMES, "released", subsets)
    assert found[2] != found[40]


def f_score_by_loops(images: Sequence[tuple[Tensor, Tensor]], radius: int) -> list[float]:
    by_class = []
    for index in range(NUM_CLASSES):
        values = []
        for prediction, label in images:
            counted = label.numpy() != IGNORED
            guessed, true = (
                {(y, x) for y, x in edge_points(m.numpy(), counted) if m[y, x] == index} for m in (prediction, label)
            )
            if not guessed and not true:
                continue
            hits = [
                sum(nearest(point, others) <= radius**2 for point in points) / max(len(points), 1)
                for points, others in ((guessed, true), (true, guessed))
            ]
            values.append(2 * math.prod(hits) / sum(hits) if sum(hits) else 0.0)
        by_class.append(100 * sum(values) / len(values) if values else math.nan)
    return by_class


@pytest.mark.parametrize("seed", range(3))
def test_f_scores_are_those_of_plain_loops(seed: int) -> None:
    images = pairs(seed, 3)
    found = measured(images).result(NAMES).f_score
    for radius in RADII:
        expected = f_score_by_loops(images, radius)
        assert list(found[radius].by_class.values()) == pytest.approx(expected, nan_ok=True)
        assert found[radius].mean == pytest.approx(np.nanmean(expected))


def square(left: int) -> Tensor:
    """A 5 × 5 square of class 1 on class 0."""
    label = torch.zeros(20, 20, dtype=torch.uint8)
    label[5:10, left : left + 5] = 1
    return label


def test_a_square_two_pixels_beside_its_place() -> None:
    found = measured([(square(7), square(5))]).result(NAMES).f_score
    # Of the square's 16 boundary pixels, 4 above, 4 below and the 2 ends of the left side are within a pixel of the
    # other square's; of the 20 around it as many.
    assert found[1].by_class == pytest.approx(
        {"road": 100 * 10 / 20, "sky": 100 * 10 / 16, "car": math.nan}, nan_ok=True
    )
    assert found[1].mean == pytest.approx((50 + 62.5) / 2)
    assert found[3].by_class == pytest.approx({"road": 100, "sky": 100, "car": math.nan}, nan_ok=True)


def test_a_class_that_only_one_of_them_has_scores_zero() -> None:
    nothing = torch.zeros(20, 20, dtype=torch.uint8)
    for images in ([(nothing, square(5))], [(square(5), nothing)]):
        found = measured(images).result(NAMES).f_score
        assert found[9].by_class == pytest.approx({"road": 0, "sky": 0, "car": math.nan}, nan_ok=True)
        assert found[9].mean == 0


def test_the_mean_is_over_images_with_a_boundary_of_the_class() -> None:
    nothing = torch.zeros(20, 20, dtype=torch.uint8)
    images = [(square(5), square(5)), (square(7), square(5)), (nothing, nothing)]
    found = measured(images).result(NAMES).f_score[1]
    assert found.by_class["sky"] == pytest.approx((100 + 62.5) / 2)
    assert found.mean == pytest.approx((100 + 62.5 + 100 + 50) / 4)


def test_a_prediction_counts_only_where_the_label_does() -> None:
    label = square(5)
    label[:, 12:] = IGNORED
    right, wrong = square(5), square(5)
    wrong[:, 13:] = 2
    wrong[::2, 14:] = 0
    assert measured([(wrong, label)]).result(NAMES).to_json() == measured([(right, label)]).result(NAMES).to_json()
    # Nor is the ignored region's rim a boundary of the prediction.
    wrong[:, 12:] = 2
    assert math.isnan(measured([(wrong, label)]).result(NAMES).f_score[1].by_class["car"])


@pytest.mark.parametrize("value", [1, IGNORED])
def test_an_image_without_a_boundary_has_no_score(value: int) -> None:
    label = torch.full((6, 7), value, dtype=torch.uint8)
    found = measured([(torch.ones_like(label), label)]).result(NAMES)
    for radius in RADII:
        assert math.isnan(found.trimap[radius].miou)
        assert math.isnan(found.f_score[radius].mean)
        assert all(math.isnan(value) for value in found.f_score[radius].by_class.values())
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["f_score"]["3"] == {
        "mean": None,
        "classes": {"road": None, "sky": None, "car": None},
    }


def test_no_image_at_all_has_no_score_either() -> None:
    assert math.isnan(measured([]).result(NAMES).f_score[1].mean)


def test_json_has_rounded_numbers_by_radius() -> None:
    found = measured([(square(7), square(5))] * 3).result(NAMES).to_json()
    assert list(found["trimap"]) == list(found["f_score"]) == ["1", "3", "5", "9"]
    assert found["f_score"]["1"] == {"mean": 56.25, "classes": {"road": 50.0, "sky": 62.5, "car": None}}
    # 36 boundary pixels: 20 around the square and 16 of it. The prediction has 6 of the 16, and 5 of the 20.
    assert found["trimap"]["1"]["pixel_accuracy"] == round(100 * (15 + 9) / 36, 4)


def test_the_order_of_images_does_not_matter() -> None:
    images = pairs(3, 8)
    forward, backward = measured(images).result(NAMES), measured(images[::-1]).result(NAMES)
    assert forward.trimap == backward.trimap
    assert forward.to_json() == backward.to_json()


def test_reading_a_result_does_not_end_the_count() -> None:
    images = pairs(4, 4)
    meter = measured(images[:2])
    assert meter.result(NAMES) == measured(images[:2]).result(NAMES)
    for image in images[2:]:
        meter.add(*image)
    assert meter.result(NAMES) == measured(images).result(NAMES)


def test_classes_that_do_not_occur_may_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pairs(6, 3)
    expected = measured(images).result(NAMES).to_json()
    monkeypatch.setattr(BoundaryMeter, "_occurring", lambda self, edges: range(NUM_CLASSES))
    assert measured(images).result(NAMES).to_json() == expected


def test_a_prediction_beyond_the_classes_is_refused_where_it_counts() -> None:
    label = square(5)
    wrong = square(5)
    wrong[0, 0] = 3
    with pytest.raises(ValueError, match="no train id below 3"):
        measured([(wrong, label)]).result(NAMES)
    label[0, 0] = IGNORED
    assert measured([(wrong, label)]).result(NAMES).f_score[1].mean == 100


def test_arguments_that_do_not_fit_are_named() -> None:
    meter = BoundaryMeter(NUM_CLASSES, CPU)
    good = square(5)
    with pytest.raises(ValueError, match=r"label must have shape \[20, 20\], got \[20, 19\]"):
        meter.add(good, good[:, 1:])
    with pytest.raises(TypeError, match=r"prediction must be torch\.uint8, got torch\.int64"):
        meter.add(good.long(), good)
    with pytest.raises(ValueError, match="3 classes were counted, but there are 2 class names"):
        meter.result(("a", "b"))
    with pytest.raises(ValueError, match="num_classes must be from 1 to 255, got 256"):
        BoundaryMeter(256, CPU)
    for radii in ((), (0, 1), (3, 1), (1, 1)):
        with pytest.raises(ValueError, match="radii must be at least 1 and ascend"):
            BoundaryMeter(3, CPU, radii)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_counts_the_same_and_is_not_waited_for() -> None:
    images = pairs(7, 4)
    meter = BoundaryMeter(NUM_CLASSES, torch.device("cuda"))
    on_gpu = [(prediction.cuda(), label.cuda()) for prediction, label in images]
    torch.cuda.set_sync_debug_mode("error")
    try:
        for prediction, label in on_gpu:
            meter.add(prediction, label)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert meter.result(NAMES).to_json() == measured(images).result(NAMES).to_json()
