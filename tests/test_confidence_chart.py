"""The charts of confidence: whole PNG files that show what they are given."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastuda.errors import FastudaError
from fastuda.metrics.confidence import ConfidenceMeter, ConfidenceScores
from fastuda.metrics.confidence_chart import reliability_chart, threshold_chart

Chart = Callable[[Path, ConfidenceScores], None]


def threshold_chart_at_95(path: Path, scores: ConfidenceScores) -> None:
    threshold_chart(path, scores, 0.95)


charts = pytest.mark.parametrize("chart", [threshold_chart_at_95, reliability_chart])


def result(skill: float, num_pixels: int = 4000) -> ConfidenceScores:
    """Random confidences; `skill` is the exponent that makes of one the chance to be right."""
    generator = torch.Generator().manual_seed(0)
    confidence = 0.3 + 0.7 * torch.rand(1, num_pixels, generator=generator)
    wrong = torch.rand(1, num_pixels, generator=generator) > confidence**skill
    boundary = torch.rand(1, num_pixels, generator=generator) > confidence
    meter = ConfidenceMeter(2, torch.device("cpu"))
    label = torch.zeros(1, num_pixels, dtype=torch.uint8)
    meter.add(wrong.to(torch.uint8), confidence, label, boundary)
    return meter.result()


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


@charts
def test_a_chart_is_a_png_of_its_size(chart: Chart, tmp_path: Path) -> None:
    chart(tmp_path / "chart.png", result(1))
    assert pixels(tmp_path / "chart.png").shape == (810, 1350, 3)
    assert [file.name for file in tmp_path.iterdir()] == ["chart.png"]


@charts
def test_other_results_give_another_picture_and_the_same_results_the_same(chart: Chart, tmp_path: Path) -> None:
    for name, skill in (("one", 1), ("again", 1), ("other", 4)):
        chart(tmp_path / name, result(skill))
    one, again, other = (pixels(tmp_path / name) for name in ("one", "again", "other"))
    assert np.array_equal(one, again)
    assert (one != other).any(-1).mean() > 0.005


def test_the_recipes_threshold_is_marked(tmp_path: Path) -> None:
    scores = result(1)
    for tau in (0.5, 0.95):
        threshold_chart(tmp_path / f"{tau}.png", scores, tau)
    assert not np.array_equal(pixels(tmp_path / "0.5.png"), pixels(tmp_path / "0.95.png"))


def test_a_threshold_that_was_not_counted_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"threshold 0\.54321 was not counted"):
        threshold_chart(tmp_path / "chart.png", result(1), 0.54321)


@charts
def test_no_pixels_make_an_empty_chart(chart: Chart, tmp_path: Path) -> None:
    nothing = ConfidenceMeter(2, torch.device("cpu")).result()
    assert math.isnan(nothing.ece)
    chart(tmp_path / "chart.png", nothing)
    assert pixels(tmp_path / "chart.png").shape == (810, 1350, 3)


@charts
def test_a_folder_that_is_not_there_is_named(chart: Chart, tmp_path: Path) -> None:
    with pytest.raises(FastudaError, match=r"none/chart\.png: cannot be written"):
        chart(tmp_path / "none" / "chart.png", result(1))
