"""Augmentations in DALI against the OpenCV and Pillow operations that the released code uses, within stated bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from nvidia.dali import fn, pipeline_def
from PIL import Image, ImageFilter

from fastuda.data.colour import jitter_colours

cv2 = pytest.importorskip("cv2")

Pixels = NDArray[np.uint8]
Colour = tuple[float, ...]


@pytest.fixture(scope="module")
def image() -> Pixels:
    """A photograph's likeness: smooth colours, edges, a little noise."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (144, 96), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    smooth[30:60, 40:100] = smooth[30:60, 40:100] * 0.4 + 20
    pixels: Pixels = np.clip(smooth + rng.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)
    return pixels


def run(build: Callable[..., Any], image: Pixels, *parameters: Colour) -> NDArray[np.int64]:
    """The image after the operations that `build` makes of it and of the parameters."""
    given = ([image], *([np.array(one, np.float32)] for one in parameters))
    layouts = ["HWC", *([""] * len(parameters))]

    @pipeline_def  # type: ignore[untyped-decorator]
    def graph() -> Any:
        return build(*fn.external_source(source=lambda: given, num_outputs=len(given), layout=layouts))

    pipeline = graph(batch_size=1, num_threads=1, device_id=None, exec_dynamic=True)
    pipeline.build()
    (result,) = pipeline.run()
    return np.asarray(result.as_array())[0].astype(np.int64)


def jittered(image: Pixels, colour: Colour) -> NDArray[np.int64]:
    return run(jitter_colours, image, colour)


def brightness_contrast(image: Pixels, contrast: float, brightness: float) -> Pixels:
    found: Pixels = np.clip(image.astype(np.float32) * contrast + brightness, 0, 255).astype(np.uint8)
    return found


def hsv_shift(image: Pixels, hue: int, saturation: int, value: int) -> Pixels:
    """On uint8 HSV, hue cyclic at 180: what the released code's library does."""
    h, s, v = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.int16))
    shifted = [(h + hue) % 180, np.clip(s + saturation, 0, 255), np.clip(v + value, 0, 255)]
    found: Pixels = cv2.cvtColor(cv2.merge([one.astype(np.uint8) for one in shifted]), cv2.COLOR_HSV2RGB)
    return found


def errors(found: NDArray[np.int64], expected: Pixels) -> tuple[float, float]:
    """Mean and 99th percentile of the difference, in levels."""
    gap = np.abs(found - expected)
    return float(gap.mean()), float(np.percentile(gap, 99))


@pytest.mark.parametrize(("contrast", "brightness"), [(1.2, 0.0), (0.8, 0.0), (1.0, 51.0), (0.87, -33.0), (1.13, 20.0)])
def test_brightness_and_contrast_differ_by_a_level_of_rounding(
    image: Pixels, contrast: float, brightness: float
) -> None:
    found = jittered(image, (contrast, brightness, 0, 0, 0, 0))
    assert np.abs(found - brightness_contrast(image, contrast, brightness)).max() <= 1


# OpenCV keeps hue in steps of two degrees and saturation in whole levels, so colours come back up to a few levels off.
SHIFTS = [(20, 0, 0), (-20, 0, 0), (0, 30, 0), (0, -30, 0), (0, 0, 20), (0, 0, -20), (13, 17, -11), (-19, -28, 9)]


@pytest.mark.parametrize("shift", SHIFTS)
def test_hue_saturation_and_value_shift_as_opencv_shifts_them(image: Pixels, shift: tuple[int, int, int]) -> None:
    mean, most = errors(jittered(image, (1, 0, *shift, 0)), hsv_shift(image, *shift))
    assert mean < MEAN_BOUND
    assert most <= MOST_BOUND


# Measured: 0.45 to 0.54 levels on average, the 99th percentile 3.
MEAN_BOUND, MOST_BOUND = 0.6, 3


@pytest.mark.parametrize("wrong", [(-20, 0, 0), (20, 0, 5), (24, 0, 0), (20, 6, 0)])
def test_the_bounds_tell_another_shift(image: Pixels, wrong: tuple[int, int, int]) -> None:
    mean, most = errors(jittered(image, (1, 0, *wrong, 0)), hsv_shift(image, 20, 0, 0))
    assert mean > MEAN_BOUND or most > MOST_BOUND


def test_grey_is_opencvs_to_a_level(image: Pixels) -> None:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None].repeat(3, 2)
    assert np.abs(jittered(image, (1, 0, 0, 0, 0, 1)) - grey).max() <= 1


@pytest.mark.parametrize("kernel", [3, 5])
def test_the_strong_blur_is_opencvs_of_that_kernel(image: Pixels, kernel: int) -> None:
    sigma = 0.3 * ((kernel - 1) * 0.5 - 1) + 0.8
    found = run(lambda pixels: fn.gaussian_blur(pixels, sigma=sigma, window_size=kernel), image)
    assert np.abs(found - cv2.GaussianBlur(image, (kernel, kernel), 0)).max() <= BLUR_BOUND[kernel]
    other = cv2.GaussianBlur(image, (8 - kernel, 8 - kernel), 0)
    assert np.abs(found - other).max() > BLUR_BOUND[kernel]


# OpenCV has fixed tables for these two kernels, a little off its own rule for sigma.
BLUR_BOUND = {3: 2, 5: 2}

# Mean and largest difference by radius. Pillow makes a Gaussian of three box blurs, which at small radii blur more.
PILLOW_BOUND = {0.3: (0.1, 9), 0.6: (0.8, 4), 1.0: (0.6, 4)}


def blurred(image: Pixels, radius: float) -> NDArray[np.int64]:
    window = 2 * int(np.ceil(3 * radius)) + 1
    return run(lambda pixels: fn.gaussian_blur(pixels, sigma=radius, window_size=window), image)


@pytest.mark.parametrize("radius", PILLOW_BOUND)
def test_the_views_blur_is_pillows_of_that_radius(image: Pixels, radius: float) -> None:
    expected = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))
    mean, largest = PILLOW_BOUND[radius]
    gap = np.abs(blurred(image, radius) - expected)
    assert gap.mean() < mean
    assert gap.max() <= largest
    assert np.abs(blurred(image, radius + 0.4) - expected).mean() > mean
