"""The strong view's colours, against OpenCV's HSV shift written per pixel with the standard library."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from nvidia.dali import fn, pipeline_def

from fastuda.data.loading.colour import jitter_colours
from fastuda.data.loading.sampling import NO_COLOUR

Colour = tuple[float, ...]


def jittered(image: NDArray[np.uint8], *colours: Colour) -> NDArray[np.int64]:
    """The image [H, W, 3] under each of the parameter sets, int64 [len(colours), H, W, 3]."""

    @pipeline_def  # type: ignore[untyped-decorator]
    def graph() -> Any:
        pixels, parameters = fn.external_source(
            source=lambda: ([image] * len(colours), [np.array(c, np.float32) for c in colours]), num_outputs=2
        )
        return jitter_colours(pixels, parameters)

    pipeline = graph(batch_size=len(colours), num_threads=1, device_id=None, exec_dynamic=True)
    pipeline.build()
    (result,) = pipeline.run()
    found = np.asarray(result.as_array())
    assert found.dtype == np.uint8
    return found.astype(np.int64)


def reference(pixel: NDArray[np.uint8], colour: Colour) -> list[float]:
    """Brightness and contrast, then hue, saturation and value added in OpenCV's units, then grey."""
    contrast, brightness, hue, saturation, value, grey = colour
    levels = [min(max(float(level) * contrast + brightness, 0), 255) for level in pixel]
    h, s, v = colorsys.rgb_to_hsv(*(level / 255 for level in levels))
    h = ((h * 180 + hue) % 180) / 180
    s = min(max(s * 255 + saturation, 0), 255) / 255
    v = min(max(v * 255 + value, 0), 255) / 255
    red, green, blue = (255 * level for level in colorsys.hsv_to_rgb(h, s, v))
    return [0.299 * red + 0.587 * green + 0.114 * blue] * 3 if grey else [red, green, blue]


CORNERS = [[r, g, b] for r in (0, 255) for g in (0, 255) for b in (0, 255)]
GREYS = [[level] * 3 for level in (1, 2, 100, 127, 128, 254)]
NEARLY_GREY = [[100, 100, 101], [100, 101, 100], [101, 100, 100], [1, 0, 0], [254, 255, 255], [255, 254, 255]]


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    random = np.random.default_rng(0).integers(0, 256, (236, 3), np.uint8)
    return np.concatenate([np.array(CORNERS + GREYS + NEARLY_GREY, np.uint8), random]).reshape(8, 32, 3)


CHANGES: dict[str, Colour] = {
    "nothing": NO_COLOUR,
    "brighter": (1, 51, 0, 0, 0, 0),
    "darker": (1, -51, 0, 0, 0, 0),
    "more contrast": (1.2, 0, 0, 0, 0, 0),
    "less contrast": (0.8, 0, 0, 0, 0, 0),
    "contrast comes before brightness": (0.8, 40, 0, 0, 0, 0),
    "hue onwards": (1, 0, 20, 0, 0, 0),
    "hue backwards": (1, 0, -20, 0, 0, 0),
    "half a turn": (1, 0, 90, 0, 0, 0),
    "more saturated": (1, 0, 0, 30, 0, 0),
    "less saturated": (1, 0, 0, -30, 0, 0),
    "higher value": (1, 0, 0, 0, 20, 0),
    "lower value": (1, 0, 0, 0, -20, 0),
    "grey": (1, 0, 0, 0, 0, 1),
    "all": (1.13, -17, 11.3, 21.7, -13.1, 0),
    "all the other way": (0.87, 23, -17.9, -25.2, 9.4, 0),
    "all, then grey": (1.13, -17, 11.3, 21.7, -13.1, 1),
}


@pytest.fixture(scope="module")
def found(image: NDArray[np.uint8]) -> dict[str, NDArray[np.int64]]:
    return dict(zip(CHANGES, jittered(image, *CHANGES.values()), strict=True))


@pytest.mark.parametrize("change", CHANGES)
def test_colours_are_those_of_the_reference(
    change: str, image: NDArray[np.uint8], found: dict[str, NDArray[np.int64]]
) -> None:
    expected = [reference(pixel, CHANGES[change]) for pixel in image.reshape(-1, 3)]
    # Half a level of rounding, and a little for single precision.
    assert np.abs(found[change].reshape(-1, 3) - expected).max() <= 0.51


@pytest.mark.parametrize("change", [name for name in CHANGES if name != "nothing"])
def test_each_change_changes_something(
    change: str, image: NDArray[np.uint8], found: dict[str, NDArray[np.int64]]
) -> None:
    assert np.abs(found[change] - image).mean() > 2


def test_no_colour_leaves_every_level_as_it_is() -> None:
    levels = np.arange(0, 256, 5, dtype=np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(len(levels), -1, 3)
    assert np.array_equal(jittered(cube, NO_COLOUR)[0], cube)


def test_black_stays_black_whatever_its_hue_and_saturation() -> None:
    black = np.zeros((1, 1, 3), np.uint8)
    assert not jittered(black, (1.2, 0, 20, 30, 0, 0), (1, -51, 20, 30, -20, 0)).any()


def test_white_stays_white_when_brighter() -> None:
    white = np.full((1, 1, 3), 255, np.uint8)
    assert (jittered(white, (1.2, 51, 0, -30, 20, 0), (1, 0, 20, 0, 0, 0)) == 255).all()


def test_grey_pixels_have_equal_channels(found: dict[str, NDArray[np.int64]]) -> None:
    assert np.ptp(found["all, then grey"], axis=-1).max() == 0


def test_opposite_hue_shifts_undo_each_other(image: NDArray[np.uint8]) -> None:
    # Saturated colours: near grey, one level of rounding is a large turn.
    image = image[np.ptp(image, axis=-1) > 100].reshape(1, -1, 3)
    there = jittered(image, (1, 0, 20, 0, 0, 0))[0].astype(np.uint8)
    assert np.abs(jittered(there, (1, 0, -20, 0, 0, 0))[0] - image).max() <= 2


def test_a_full_turn_of_hue_is_none(image: NDArray[np.uint8]) -> None:
    assert np.abs(jittered(image, (1, 0, 180, 0, 0, 0), (1, 0, -180, 0, 0, 0)) - image).max() <= 0
