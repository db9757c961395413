"""Scores of confusion matrices small enough to compute by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from fastuda.metrics import Scores

NAMES = ("road", "sky", "car")
# Rows are labels, columns predictions.
BY_HAND = np.array([[6, 1, 1], [0, 3, 1], [2, 0, 2]])


def test_iou_is_right_over_union() -> None:
    found = Scores.of(BY_HAND, NAMES, "full")
    assert found.iou == pytest.approx({"road": 100 * 6 / 10, "sky": 100 * 3 / 5, "car": 100 * 2 / 6})
    assert found.miou == pytest.approx(100 * (6 / 10 + 3 / 5 + 2 / 6) / 3)


def test_accuracies_are_shares_of_the_labels() -> None:
    found = Scores.of(BY_HAND, NAMES, "full")
    assert found.pixel_accuracy == pytest.approx(100 * 11 / 16)
    assert found.mean_accuracy == pytest.approx(100 * (6 / 8 + 3 / 4 + 2 / 4) / 3)


def test_a_class_that_nobody_names_has_no_iou_and_is_left_out_of_the_mean() -> None:
    found = Scores.of(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]), NAMES, "full")
    assert math.isnan(found.iou["car"])
    assert found.miou == pytest.approx(100 * (3 / 4 + 4 / 5) / 2)
    assert found.mean_accuracy == pytest.approx(100 * (3 / 4 + 1) / 2)


def test_a_class_that_is_only_predicted_counts_as_zero() -> None:
    found = Scores.of(np.array([[3, 0, 1], [0, 4, 0], [0, 0, 0]]), NAMES, "full")
    assert found.iou["car"] == 0
    assert found.miou == pytest.approx(100 * (3 / 4 + 1 + 0) / 3)
    # No label of it, so there is no accuracy of it.
    assert found.mean_accuracy == pytest.approx(100 * (3 / 4 + 1) / 2)


def test_subsets_are_means_over_their_own_classes() -> None:
    found = Scores.of(BY_HAND, NAMES, "full", {"ground": ("road", "car"), "up": ("sky",)})
    assert found.subsets == pytest.approx({"ground": 100 * (6 / 10 + 2 / 6) / 2, "up": 60})


def test_a_subset_leaves_absent_classes_out_too() -> None:
    found = Scores.of(np.diag([3, 0, 0]), NAMES, "full", {"two": ("road", "sky"), "none": ("sky", "car")})
    assert found.subsets["two"] == 100
    assert math.isnan(found.subsets["none"])


def test_no_pixel_at_all_gives_no_score() -> None:
    found = Scores.of(np.zeros((3, 3), np.int64), NAMES, "full")
    assert math.isnan(found.miou)
    assert found.pixel_accuracy == 0


def test_json_has_plain_numbers_and_none_where_there_is_no_value() -> None:
    found = Scores.of(np.array([[2, 1, 0], [0, 0, 0], [0, 0, 0]]), NAMES, "released", {"up": ("car",)}).to_json()
    assert json.loads(json.dumps(found, allow_nan=False)) == {
        "protocol": "released",
        "miou": 33.3333,
        "iou": {"road": 66.6667, "sky": 0.0, "car": None},
        "pixel_accuracy": 66.6667,
        "mean_accuracy": 66.6667,
        "absent": ["sky", "car"],
        "subsets": {"up": None},
    }


def test_counts_beyond_32_bits_are_exact() -> None:
    many = 500 * 2048 * 1024
    found = Scores.of(np.array([[3 * many, many], [0, many]]), ("a", "b"), "full")
    assert found.iou == pytest.approx({"a": 75.0, "b": 50.0})


@pytest.mark.parametrize("shape", [(2, 2), (3, 4), (4, 4)])
def test_a_matrix_of_another_size_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"shape \[{shape[0]}, {shape[1]}\], but there are 3 class names"):
        Scores.of(np.zeros(shape, np.int64), NAMES, "full")
