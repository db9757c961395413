"""Pseudo-labels held against labels: counted pixel by pixel in numpy, and by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from fastuda.metrics.pseudo_labels import PseudoLabelMeter, PseudoLabelScores

NAMES = ("road", "car", "train")
CPU = torch.device("cpu")


def test_shares_by_hand() -> None:
    # Rows: label; columns: pseudo-label. No pixel is a train, and none that is called so is confident.
    every = np.array([[6, 2, 0], [1, 9, 2], [0, 0, 0]], np.int64)
    confident = np.array([[3, 0, 0], [1, 4, 0], [0, 0, 0]], np.int64)
    found = PseudoLabelScores.of(every, confident, NAMES, 0.95)
    assert (found.precision, found.share_kept, found.precision_above_tau) == (75.0, 40.0, 87.5)
    road, train = found.classes["road"], found.classes["train"]
    assert (road.share_true, road.share_predicted, road.share_kept) == (40.0, 35.0, 20.0)
    assert (road.precision, road.recall) == pytest.approx((600 / 7, 75.0))
    assert (road.precision_above_tau, road.recall_above_tau) == (75.0, 37.5)
    assert (train.share_true, train.share_predicted, train.precision) == (0.0, 10.0, 0.0)
    assert math.isnan(train.recall)
    assert math.isnan(train.precision_above_tau)
    content = found.to_json()
    assert content["classes"]["train"]["recall_above_tau"] is None
    assert content["classes"]["road"]["precision"] == 85.7143
    assert json.loads(json.dumps(content)) == content
    assert sum(one["share_kept"] for one in content["classes"].values()) == content["share_kept"]


def test_what_is_counted_is_what_numpy_counts() -> None:
    rng = np.random.default_rng(3)
    meter, tau = PseudoLabelMeter(NAMES, 0.7, CPU), np.float32(0.7)
    every, confident = np.zeros((3, 3), np.int64), np.zeros((3, 3), np.int64)
    for _ in range(3):
        label, truth = rng.integers(0, 3, (5, 7), np.uint8), rng.integers(0, 4, (5, 7), np.uint8)
        truth[truth == 3] = 255
        confidence = rng.choice(np.array([0.2, 0.7, 0.9], np.float32), (5, 7))
        meter.add(*(torch.from_numpy(one) for one in (label, confidence, truth)))
        for one, sure, true in zip(label.flat, confidence.flat, truth.flat, strict=True):
            if true < 3:
                every[true, one] += 1
                confident[true, one] += sure > tau
    assert 0 < confident.sum() < every.sum()
    assert meter.result() == PseudoLabelScores.of(every, confident, NAMES, 0.7)


def test_nothing_counted_is_no_number() -> None:
    content = PseudoLabelMeter(NAMES, 0.5, CPU).result().to_json()
    assert (content["precision"], content["share_kept"]) == (None, None)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \[3, 3\], but there are 2 class names"):
        PseudoLabelScores.of(np.zeros((3, 3), np.int64), np.zeros((3, 3), np.int64), NAMES[:2], 0.5)
    label, confidence = torch.zeros(4, 4, dtype=torch.uint8), torch.zeros(4, 4)
    for arguments in (
        (label, confidence[:2], label),
        (label.long(), confidence, label),
        (label, confidence, label[:2]),
    ):
        with pytest.raises((ValueError, TypeError)):
            PseudoLabelMeter(NAMES, 0.5, CPU).add(*arguments)
