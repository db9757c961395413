"""Calibration and threshold curves against torchmetrics, direct comparison and numbers computed by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.classification import MulticlassCalibrationError

from fastuda.metrics.confidence import THRESHOLDS, ConfidenceMeter, ConfidenceScores

CPU = torch.device("cpu")
IGNORED = 255
NUM_CLASSES = 5
Sample = tuple[Tensor, Tensor, Tensor, Tensor]
"""Prediction, confidence, label and boundary of one image."""


def sample(seed: int, shape: tuple[int, int] = (40, 60), sharpness: float = 3.0) -> tuple[Tensor, Sample]:
    """Random probabilities [C, H, W] and what is read off them; sure pixels are right more often."""
    generator = torch.Generator().manual_seed(seed)
    probabilities = (sharpness * torch.randn(NUM_CLASSES, *shape, generator=generator)).softmax(0)
    confidence, prediction = probabilities.max(0)
    prediction = prediction.to(torch.uint8)
    right = torch.rand(shape, generator=generator) < confidence**2
    label = torch.where(right, prediction, torch.randint(0, NUM_CLASSES, shape, generator=generator).to(torch.uint8))
    label[torch.rand(shape, generator=generator) < 0.1] = IGNORED
    boundary = torch.rand(shape, generator=generator) < 0.3
    return probabilities, (prediction, confidence, label, boundary)


def measured(samples: Sequence[Sample], thresholds: Sequence[float] = ()) -> ConfidenceScores:
    meter = ConfidenceMeter(NUM_CLASSES, CPU, thresholds)
    for one in samples:
        meter.add(*one)
    return meter.result()


def line(confidences: Sequence[float], right: Sequence[int], boundary: Sequence[int] | None = None) -> Sample:
    """One row of pixels of class 0, predicted as 0 where right and as 1 elsewhere."""
    prediction = torch.tensor([[0 if one else 1 for one in right]], dtype=torch.uint8)
    flags = torch.tensor([boundary if boundary is not None else [0] * len(right)], dtype=torch.bool)
    return prediction, torch.tensor([confidences], dtype=torch.float32), torch.zeros_like(prediction), flags


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sharpness", [0.3, 3.0])
def test_the_calibration_error_is_torchmetrics(seed: int, sharpness: float) -> None:
    reference = MulticlassCalibrationError(NUM_CLASSES, n_bins=15, norm="l1", ignore_index=IGNORED)
    samples = []
    for image in range(2):
        probabilities, one = sample(10 * seed + image, sharpness=sharpness)
        reference.update(probabilities[None], one[2][None].long())
        samples.append(one)
    # The reference closes its bins below and not above, and adds up in float32. Of random confidences none lies on
    # an edge, so that only its rounding is left: a few 1e-7 a sum, in percent 1e-4 at the most.
    assert measured(samples).ece == pytest.approx(100 * float(reference.compute()), abs=1e-4)


def test_a_confidence_on_a_bins_edge_belongs_below_it() -> None:
    edges = [np.float32(i / 15) for i in range(1, 16)]
    found = measured([line([float(edge) for edge in edges], [1] * 15)])
    assert [one.share for one in found.reliability] == pytest.approx([100 / 15] * 15)
    above = [float(np.nextafter(edge, np.float32(2))) for edge in edges[:-1]]
    found = measured([line(above, [1] * 14)])
    assert [one.share for one in found.reliability] == pytest.approx([0, *[100 / 14] * 14])


def test_reliability_and_calibration_by_hand() -> None:
    found = measured([line([0.5, 0.52, 0.98, 0.96], [1, 0, 1, 1])])
    half, sure = found.reliability[7], found.reliability[14]
    assert (half.share, half.confidence, half.accuracy) == pytest.approx((50, 51, 50))
    assert (sure.share, sure.confidence, sure.accuracy) == pytest.approx((50, 97, 100))
    assert found.ece == pytest.approx((1 + 3) / 2, abs=1e-5)
    assert math.isnan(found.reliability[0].accuracy)
    assert math.isnan(found.reliability[0].confidence)
    assert found.reliability[0].share == 0


def test_what_thresholds_keep_by_hand() -> None:
    found = measured([line([0.3, 0.6, 0.6, 0.9, 0.99], [0, 0, 1, 0, 1], [1, 1, 0, 0, 1])])
    none, most, few = (found.overall.at(tau) for tau in (0, 0.5, 0.95))
    assert (none.pixels, none.errors, none.error_rate) == pytest.approx((100, 100, 60))
    assert (most.pixels, most.errors, most.error_rate) == pytest.approx((80, 100 * 2 / 3, 50))
    assert (few.pixels, few.errors, few.error_rate) == pytest.approx((20, 0, 0))
    edge = found.boundary.at(0.5)
    assert (edge.pixels, edge.errors, edge.error_rate) == pytest.approx((100 * 2 / 3, 50, 50))
    assert (found.num_pixels, found.boundary_pixels) == (5, pytest.approx(60))
    assert found.boundary_errors == pytest.approx(100 * 2 / 3)


@pytest.mark.parametrize("seed", range(3))
def test_the_curve_is_the_comparison_that_pseudo_labels_use(seed: int) -> None:
    _, one = sample(seed)
    prediction, confidence, label, boundary = one
    named = (0.123456, 0.9876543)
    found = measured([one], named)
    wrong, counted = prediction != label, label != IGNORED
    assert found.boundary_pixels == pytest.approx(100 * int((boundary & counted).sum()) / int(counted.sum()))
    at_boundary = int((boundary & counted & wrong).sum())
    assert found.boundary_errors == pytest.approx(100 * at_boundary / int((counted & wrong).sum()))
    for tau in (*THRESHOLDS, *named):
        for curve, region in ((found.overall, counted), (found.boundary, counted & boundary)):
            kept = region & (confidence > tau)
            at = curve.at(tau)
            assert at.pixels == pytest.approx(100 * int(kept.sum()) / int(region.sum()))
            assert at.errors == pytest.approx(100 * int((kept & wrong).sum()) / int((region & wrong).sum()))
            rate = 100 * int((kept & wrong).sum()) / int(kept.sum()) if kept.any() else math.nan
            assert at.error_rate == pytest.approx(rate, nan_ok=True)


@pytest.mark.parametrize("tau", [0.35, 0.55, 0.75, 0.9, 0.95, 0.968, 0.97, 0.99, 0.9321, 0.0, 0.1 + 0.2])
def test_a_confidence_equal_to_the_threshold_is_not_kept(tau: float) -> None:
    edge = np.float32(tau)
    around = [float(np.nextafter(edge, np.float32(-1))), float(edge), float(np.nextafter(edge, np.float32(1)))]
    around = [max(value, 0.0) for value in around]
    kept = torch.tensor(around, dtype=torch.float32) > tau
    assert kept.tolist() == [False, False, True]
    found = measured([line(around, [1, 0, 1])], (tau,))
    assert found.overall.at(tau).pixels == pytest.approx(100 / 3)
    assert found.overall.at(tau).errors == 0


def test_the_nearest_float32_to_95_percent_lies_below_it() -> None:
    # So as float64 it is below 0.95, and as float32, as pseudo-labels are compared, it equals it: never kept.
    assert float(np.float32(0.95)) < 0.95
    found = measured([line([0.95] * 4, [1, 1, 0, 0])])
    assert found.overall.at(0.95).pixels == 0
    assert math.isnan(found.overall.at(0.95).error_rate)
    assert found.overall.at(0.9).pixels == 100


def test_every_multiple_of_a_thousandth_can_be_read() -> None:
    found = measured([sample(0)[1]])
    for i in range(1001):
        found.overall.at(i / 1000)


def test_a_threshold_that_was_not_counted_is_an_error() -> None:
    found = measured([sample(0)[1]], (0.12345,))
    assert found.overall.at(0.12345).pixels <= 100
    for tau in (0.54321, 1.5, -0.1, math.nan):
        with pytest.raises(ValueError, match=f"threshold {tau} was not counted"):
            found.boundary.at(tau)
    with pytest.raises(ValueError, match="thresholds must be from 0 to 1"):
        ConfidenceMeter(3, CPU, (1.2,))


def test_a_threshold_named_twice_is_counted_once() -> None:
    plain, named = measured([sample(0)[1]]), measured([sample(0)[1]], (0.95, 0.95, float(np.float32(0.95))))
    assert np.array_equal(plain.overall.thresholds, named.overall.thresholds)
    assert plain.to_json() == named.to_json()


def test_ignored_pixels_do_not_count_whatever_they_hold() -> None:
    prediction, confidence, label, boundary = sample(3)[1]
    before = measured([(prediction, confidence, label, boundary)])
    ignored = label == IGNORED
    label = torch.where(ignored, NUM_CLASSES + 1, label)
    confidence = torch.where(ignored, torch.nan, confidence)
    after = measured([(prediction, confidence, label, ~boundary & ignored | boundary)])
    assert after.to_json() == before.to_json()
    assert after.num_pixels == int((~ignored).sum())


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.01, 1.01])
def test_what_is_no_probability_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"1 confidences are NaN or outside \[0, 1\]"):
        measured([line([0.5, value], [1, 1])])


def test_zero_and_one_are_confidences() -> None:
    found = measured([line([0.0, 1.0, 1 + 1e-6], [0, 1, 1])])
    assert found.num_pixels == 3
    assert found.overall.at(0).pixels == pytest.approx(100 * 2 / 3)
    assert found.overall.at(1).pixels == 0
    assert [found.reliability[i].share for i in (0, 14)] == pytest.approx([100 / 3, 200 / 3])
    assert found.reliability[14].confidence == 100
    assert found.ece == 0


def test_the_order_of_images_and_pixels_changes_nothing_at_all() -> None:
    samples = [sample(seed)[1] for seed in range(5)]
    whole = tuple(torch.cat(parts) for parts in zip(*samples, strict=True))
    mixed = torch.randperm(whole[0].numel(), generator=torch.Generator().manual_seed(0))
    shuffled = tuple(part.flatten()[mixed].view(part.shape) for part in whole)
    first, *others = (measured(images) for images in (samples, samples[::-1], [whole], [shuffled]))
    for other in others:
        assert other.ece == first.ece
        # An empty bin's NaN does not equal itself; as text it does.
        assert repr(other.reliability) == repr(first.reliability)
        for own, its in ((other.overall, first.overall), (other.boundary, first.boundary)):
            assert np.array_equal(own.errors, its.errors)
            assert np.array_equal(own.error_rate, its.error_rate, equal_nan=True)


def test_the_mean_confidence_is_exact() -> None:
    _, one = sample(1, shape=(200, 300))
    _, confidence, label, _ = one
    sure = confidence[(label != IGNORED) & (confidence > np.float32(14 / 15))].double().mean()
    assert measured([one]).reliability[14].confidence == pytest.approx(100 * float(sure), abs=1e-10)
    low = confidence[(label != IGNORED) & (confidence > np.float32(5 / 15)) & (confidence <= np.float32(6 / 15))]
    # Below 0.5 a float32 may lie between the steps of 2^-24.
    assert measured([one]).reliability[5].confidence == pytest.approx(100 * float(low.double().mean()), abs=3e-6)


def test_no_pixel_at_all_gives_no_value() -> None:
    found = measured([])
    assert found.num_pixels == 0
    assert math.isnan(found.ece)
    text = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert text["ece"] is None
    assert text["overall"]["pixels"] == [None] * len(THRESHOLDS)


def test_nothing_wrong_and_no_boundary_leave_their_shares_without_a_value() -> None:
    found = measured([line([0.9, 0.8], [1, 1])])
    assert found.boundary_pixels == 0
    assert math.isnan(found.boundary_errors)
    assert math.isnan(found.overall.at(0.5).errors)
    assert found.overall.at(0.5).error_rate == 0
    assert math.isnan(found.boundary.at(0.5).pixels)


def test_json_is_compact_and_lists_the_thresholds_asked_for() -> None:
    found = measured([sample(2)[1]], (0.968,))
    content = found.to_json()
    assert content["thresholds"] == [*(round(0.05 * i, 2) for i in range(20)), 0.97, 0.99]
    assert content["overall"]["errors"][19] == round(found.overall.at(0.95).errors, 4)
    assert content["boundary"]["pixels"][19] == round(found.boundary.at(0.95).pixels, 4)
    assert len(content["reliability"]["share"]) == 15
    assert len(json.dumps(content, allow_nan=False)) < 2500
    assert found.to_json((0.5, 0.968))["overall"]["pixels"] == [
        round(found.overall.at(tau).pixels, 4) for tau in (0.5, 0.968)
    ]


def test_arguments_that_do_not_fit_are_named() -> None:
    meter = ConfidenceMeter(NUM_CLASSES, CPU)
    prediction, confidence, label, boundary = sample(0)[1]
    with pytest.raises(TypeError, match=r"confidence must be torch\.float32, got torch\.float64"):
        meter.add(prediction, confidence.double(), label, boundary)
    with pytest.raises(ValueError, match=r"boundary must have shape \[40, 60\], got \[40, 59\]"):
        meter.add(prediction, confidence, label, boundary[:, 1:])
    with pytest.raises(ValueError, match="num_classes must be from 1 to 255, got 0"):
        ConfidenceMeter(0, CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_counts_the_same_and_is_not_waited_for() -> None:
    samples = [sample(seed)[1] for seed in range(3)]
    meter = ConfidenceMeter(NUM_CLASSES, torch.device("cuda"))
    on_gpu = [[tensor.cuda() for tensor in one] for one in samples]
    torch.cuda.set_sync_debug_mode("error")
    try:
        for prediction, confidence, label, boundary in on_gpu:
            meter.add(prediction, confidence, label, boundary)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert meter.result().to_json() == measured(samples).to_json()
