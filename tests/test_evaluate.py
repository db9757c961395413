"""Scores of a model whose answers are known: it tells the plain colours of an image's two halves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fastuda.data.loading.evaluation_loader import EvaluationLoader
from fastuda.data.packing.pack import Packed
from fastuda.evaluation.scoring import scored
from fastuda.metrics import Scores
from fastuda.model.passes import Passes
from fastuda.model.segmenter import Outputs
from fastuda.recipe import Recipe

CPU = torch.device("cpu")
NAMES = ("red", "green", "blue")
COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
HALVES = [(0, 1), (1, 2), (2, 0)]
"""Left and right class of each test image."""

Pixels = NDArray[np.uint8]


class Halves(nn.Module):
    """Outputs [B, 3, 2, 2]: one for the class whose colour a half of the input has, zero for the others."""

    align_corners = True

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Outputs:
        assert images.shape[2:] == (16, 32)
        brightest = F.adaptive_avg_pool2d(images, 2).argmax(1)
        return Outputs(F.one_hot(brightest, 3).permute(0, 3, 1, 2).float(), None)


@pytest.fixture
def recipe(tiny_recipe: Callable[..., Recipe]) -> Recipe:
    return tiny_recipe(f"classes.names={list(NAMES)}", "eval.size=[32, 16]", "eval.subsets.cold=['green', 'blue']")


def halves(classes: tuple[int, int], height: int = 48, width: int = 96) -> Pixels:
    return np.array([classes], np.uint8).repeat(height, 0).repeat(width // 2, 1)


@pytest.fixture
def evaluated(pack: Callable[..., Packed], recipe: Recipe) -> Callable[..., dict[str, Scores]]:
    def run(labels: list[Pixels], **options: Any) -> dict[str, Scores]:
        images = [COLOURS[halves(HALVES[i], *label.shape)] for i, label in enumerate(labels)]
        packed = pack(recipe, images, labels, size=(32, 16), own_label_size=True)
        loader = EvaluationLoader(packed, 2, 1, CPU)
        return scored(Halves(), loader, recipe, Passes.of(recipe, CPU), **options)  # type: ignore[arg-type]

    return run


def test_perfect_predictions_score_100_under_both_protocols(evaluated: Callable[..., dict[str, Scores]]) -> None:
    found = evaluated([halves(classes) for classes in HALVES])
    assert list(found) == ["full", "released"]
    for protocol, one in found.items():
        assert one.protocol == protocol
        assert one.iou == {"red": 100, "green": 100, "blue": 100}
        assert (one.miou, one.pixel_accuracy, one.mean_accuracy, one.subsets) == (100, 100, 100, {"cold": 100})


def test_labels_of_different_sizes_are_each_scored_at_their_own(evaluated: Callable[..., dict[str, Scores]]) -> None:
    found = evaluated([halves(HALVES[0]), halves(HALVES[1], 20, 40)])
    assert found["full"].miou == 100
    # At its own size, the second image weighs less than the first.
    wrong = halves(HALVES[1], 20, 40)
    wrong[:10] = 0
    found = evaluated([halves(HALVES[0]), wrong])
    assert found["full"].pixel_accuracy == pytest.approx(100 * (1 - 400 / (48 * 96 + 800)))
    assert found["released"].pixel_accuracy == pytest.approx(75)


def test_the_released_protocol_sees_only_the_label_pixels_that_a_resize_keeps(
    evaluated: Callable[..., dict[str, Scores]],
) -> None:
    label = halves(HALVES[0])
    # From 96 to 32 columns, the middle one of three is kept.
    label[:, 0::3] = (label[:, 0::3] + 1) % 3
    found = evaluated([label])
    assert found["released"].pixel_accuracy == 100
    assert found["full"].pixel_accuracy == pytest.approx(100 * 2 / 3)


def test_ignored_pixels_do_not_count(evaluated: Callable[..., dict[str, Scores]]) -> None:
    label = halves((0, 2))
    wrong = evaluated([label])
    label[:, 48:] = 255
    right = evaluated([label])
    for protocol in ("full", "released"):
        assert wrong[protocol].iou == {"red": 100, "green": 0, "blue": 0}
        assert right[protocol].iou == pytest.approx({"red": 100, "green": np.nan, "blue": np.nan}, nan_ok=True)


def test_an_image_without_any_label_changes_nothing(evaluated: Callable[..., dict[str, Scores]]) -> None:
    found = evaluated([halves(HALVES[0]), np.full((48, 96), 255, np.uint8)])
    assert found["full"].iou == pytest.approx({"red": 100, "green": 100, "blue": np.nan}, nan_ok=True)


def test_rows_are_labels_and_columns_predictions(evaluated: Callable[..., dict[str, Scores]]) -> None:
    # A third of what is red is called green: red's accuracy falls, green's does not.
    label = halves((0, 1))
    label[:, 48:72] = 0
    found = evaluated([label])["full"]
    assert found.iou == pytest.approx({"red": 100 * 2 / 3, "green": 50, "blue": np.nan}, nan_ok=True)
    assert found.mean_accuracy == pytest.approx(100 * (2 / 3 + 1) / 2)


def test_every_image_is_shown_with_its_name_logits_and_label(evaluated: Callable[..., dict[str, Scores]]) -> None:
    seen: list[tuple[str, Outputs, Tensor]] = []
    progress: list[tuple[int, int]] = []
    labels = [halves(classes) for classes in HALVES]
    evaluated(labels, on_image=lambda *args: seen.append(args), progress=lambda *args: progress.append(args))
    assert [name for name, _, _ in seen] == ["000", "001", "002"]
    for (_, outputs, label), expected, classes in zip(seen, labels, HALVES, strict=True):
        assert outputs.logits.shape == (1, 3, 2, 2)
        assert outputs.logits[0].argmax(0).tolist() == [list(classes)] * 2
        assert np.array_equal(label.numpy(), expected)
    assert progress == [(2, 3), (3, 3)]
