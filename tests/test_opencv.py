"""Augmentations against what they stand for: OpenCV's colours and blurs, Pillow's blur, torchvision's crop boxes."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from fastuda.data.loading.pipeline import input_names, output_names, run_pipeline, training_graph
from fastuda.data.loading.sampling import COLOUR_FIELDS, NO_BLUR, NO_COLOUR, Augmentation, draw_augmentation
from fastuda.recipe import Jitter, Views

WIDTH, HEIGHT = 192, 96

Pixels = NDArray[np.uint8]
Operation = Callable[[Pixels], Pixels]
Colour = tuple[float, ...]
Blur = tuple[float, int]


def street() -> Pixels:
    """Smooth gradients through many colours, black and white among them, with a camera's noise."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 12, 3), np.uint8))
    smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    return np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).round().astype(np.uint8)


IMAGE = street()


def augmented(
    output: str,
    *,
    blur: Sequence[Blur] = (NO_BLUR,),
    colour: Sequence[Colour] = (NO_COLOUR,),
    strong_blur: Sequence[Blur] = (NO_BLUR,),
) -> list[Pixels]:
    """IMAGE as the training graph's `output`, under each setting; the crop is the whole view at its own size."""
    count = max(len(blur), len(colour), len(strong_blur))
    blurs, colours, strong_blurs = (
        settings * (count // len(settings)) for settings in ([*blur], [*colour], [*strong_blur])
    )
    columns = {
        "image": [IMAGE.reshape(-1)] * count,
        "flip": [np.array(0, np.int32)] * count,
        "sigma": [np.array(sigma, np.float32) for sigma, _ in blurs],
        "window": [np.array(window, np.int32) for _, window in blurs],
        "box": [np.array((0, 0, HEIGHT, WIDTH), np.float32)] * count,
        "colour": [np.array(one, np.float32) for one in colours],
        "strong_sigma": [np.array(sigma, np.float32) for sigma, _ in strong_blurs],
        "strong_window": [np.array(window, np.int32) for _, window in strong_blurs],
        "class_keys": [np.zeros(1, np.float32)] * count,
    }
    views = Views(target_size=(WIDTH, HEIGHT), crop_size=(WIDTH, HEIGHT))
    fields = input_names(views, labelled=False)
    pipeline = training_graph(
        batch_size=count,
        num_threads=1,
        device_id=None,
        exec_dynamic=True,
        feed=lambda _: tuple(columns[name] for name in fields),
        fields=fields,
        packed_format="raw",
        packed_size=(WIDTH, HEIGHT),
        views=views,
    )
    pipeline.build()
    *images, _, _ = run_pipeline(pipeline, torch.device("cpu"))
    named = dict(zip(output_names(views, labelled=False), images, strict=True))
    return [one.numpy().copy() for one in named[output]]


class Bound(NamedTuple):
    """Of the absolute difference in levels of 255, over all pixels and channels."""

    largest: float
    mean: float

    def holds(self, one: Pixels, other: Pixels) -> bool:
        difference = np.abs(one.astype(int) - other)
        return bool(difference.max() <= self.largest and difference.mean() <= self.mean)


def drawn(count: int) -> list[Augmentation]:
    return [draw_augmentation(0, "target", g, (WIDTH, HEIGHT), 1, Views(), Jitter()) for g in range(count)]


def brightness_contrast(contrast: float, brightness: float) -> Operation:
    """A table over the 256 levels, cut off to whole ones."""
    table = np.clip(np.arange(256) * contrast + brightness, 0, 255).astype(np.uint8)
    return lambda image: table[image]


def shift_hsv(hue: float, saturation: float, value: float) -> Operation:
    """Tables over OpenCV's 8-bit hue, saturation and value, cut off to whole levels."""
    levels = np.arange(256)
    hues = np.mod(levels + hue, 180).astype(np.uint8)
    saturations, values = (np.clip(levels + shift, 0, 255).astype(np.uint8) for shift in (saturation, value))
    return in_hsv(lambda h, s, v: (hues[h], saturations[s], values[v]))


def in_hsv(change: Callable[[Pixels, Pixels, Pixels], tuple[Pixels, Pixels, Pixels]]) -> Operation:
    def changed(image: Pixels) -> Pixels:
        channels = change(*np.moveaxis(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), -1, 0))
        return cv2.cvtColor(np.stack(channels, -1), cv2.COLOR_HSV2RGB)

    return changed


def grey(image: Pixels) -> Pixels:
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def grey_of_swapped_channels(image: Pixels) -> Pixels:
    return grey(image[..., ::-1])


def opencv(colour: Colour) -> Operation:
    contrast, brightness, hue, saturation, value, make_grey = colour

    def changed(image: Pixels) -> Pixels:
        if (contrast, brightness) != NO_COLOUR[:2]:
            image = brightness_contrast(contrast, brightness)(image)
        if (hue, saturation, value) != NO_COLOUR[2:5]:
            image = shift_hsv(hue, saturation, value)(image)
        return grey(image) if make_grey else image

    return changed


def of(**changes: float) -> Colour:
    assert set(changes) <= set(COLOUR_FIELDS)
    return tuple(changes.get(name, unchanged) for name, unchanged in zip(COLOUR_FIELDS, NO_COLOUR, strict=True))


# DALI computes in single precision and rounds once; OpenCV and Pillow round to 8 bits after every operation. Bounds are
# what was measured on IMAGE, with a little slack, and operations that are wrong must break them.
# Measured: 1 and 0.50. A table that cuts off is half a level low on average.
LEVELS = Bound(1, 0.52)
# Measured: 1 and 0.001.
GREY = Bound(1, 0.01)
# Measured: 6 and 0.56. A hue of 8 bits is a multiple of 2 degrees, up to 4 levels of the middle channel off.
HSV = Bound(7, 0.65)
# Measured: 16 and 2.1. Tables cut off the fraction of each shift, half a unit on average, and roundings add up.
DRAWN = Bound(17, 2.3)

COLOURS: dict[str, tuple[Colour, Bound]] = {
    "brighter": (of(brightness=51), LEVELS),
    "darker": (of(brightness=-43), LEVELS),
    "more contrast": (of(contrast=1.2), LEVELS),
    "less contrast": (of(contrast=0.83), LEVELS),
    "less contrast and brighter": (of(contrast=0.83, brightness=30.6), LEVELS),
    "hue onwards": (of(hue=20), HSV),
    "hue backwards": (of(hue=-20), HSV),
    "more saturated": (of(saturation=30), HSV),
    "less saturated": (of(saturation=-30), HSV),
    "higher value": (of(value=20), HSV),
    "lower value": (of(value=-20), HSV),
    "all three": (of(hue=11, saturation=-21, value=13), HSV),
    "all three the other way": (of(hue=-17, saturation=24, value=-9), HSV),
    "grey": (of(grey=1), GREY),
}


@pytest.fixture(scope="module")
def coloured() -> dict[str, Pixels]:
    return dict(zip(COLOURS, augmented("strong", colour=[colour for colour, _ in COLOURS.values()]), strict=True))


@pytest.mark.parametrize("change", COLOURS)
def test_colours_are_opencvs_within_its_rounding(change: str, coloured: dict[str, Pixels]) -> None:
    colour, bound = COLOURS[change]
    assert bound.holds(coloured[change], opencv(colour)(IMAGE))
    assert not bound.holds(coloured[change], IMAGE)


def scaled(channel: Pixels, factor: float) -> Pixels:
    return np.minimum(channel * factor, 255).astype(np.uint8)


WRONG: dict[str, tuple[str, Operation]] = {
    "hue the other way": ("hue onwards", shift_hsv(-20, 0, 0)),
    "hue in degrees": ("hue onwards", shift_hsv(10, 0, 0)),
    "hue one unit too far": ("hue onwards", shift_hsv(21, 0, 0)),
    "hue clipped, not cyclic": ("hue onwards", in_hsv(lambda h, s, v: (np.minimum(h, 159) + np.uint8(20), s, v))),
    "saturation scaled": ("more saturated", in_hsv(lambda h, s, v: (h, scaled(s, 1.3), v))),
    "saturation of 100": ("more saturated", shift_hsv(0, 30 * 2.55, 0)),
    "value scaled": ("higher value", in_hsv(lambda h, s, v: (h, s, scaled(v, 1.2)))),
    "every channel brighter": ("higher value", brightness_contrast(1, 20)),
    "saturation and value exchanged": ("all three", shift_hsv(11, 13, -21)),
    "contrast about the mean": ("more contrast", brightness_contrast(1.2, -0.2 * float(IMAGE.mean()))),
    "brightness before contrast": ("less contrast and brighter", brightness_contrast(0.83, 0.83 * 30.6)),
    "grey with red and blue exchanged": ("grey", grey_of_swapped_channels),
    "grey as the channels' mean": ("grey", lambda image: image.mean(-1, keepdims=True).repeat(3, -1).astype(np.uint8)),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_change_of_colour_breaks_the_bound(wrong: str, coloured: dict[str, Pixels]) -> None:
    change, operation = WRONG[wrong]
    assert not COLOURS[change][1].holds(coloured[change], operation(IMAGE))


def test_drawn_colours_are_opencvs_one_operation_after_the_other() -> None:
    colours = [one.colour for one in drawn(120) if one.colour != NO_COLOUR]
    assert sum(colour[5] == 1 and colour[:5] != NO_COLOUR[:5] for colour in colours) >= 8
    told_apart = 0
    for result, colour in zip(augmented("strong", colour=colours), colours, strict=True):
        assert DRAWN.holds(result, opencv(colour)(IMAGE)), colour
        contrast, brightness, hue, saturation, value, make_grey = colour
        if abs(hue) > 5 and not make_grey:
            told_apart += 1
            assert not DRAWN.holds(result, opencv((contrast, brightness, -hue, saturation, value, 0))(IMAGE)), colour
    assert told_apart >= 40


# Measured: 6 and 0.74. Pillow passes three boxes over rows and columns and rounds to 8 bits each time, so that it
# leaves faint noise as it is; and below a radius of 0.5 it keeps the variance that a Gaussian loses between pixels.
VIEW_BLUR = Bound(7, 0.8)
# Measured above a radius of 0.9, where a window of 3 pixels is too narrow (0.51): 5 and 0.41.
WIDE_BLUR = Bound(6, 0.46)


def pillow_blur(image: Pixels, radius: float) -> Pixels:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def test_a_views_blur_is_pillows_of_the_drawn_radius() -> None:
    blurs = [one.blur for one in drawn(60) if one.blur != NO_BLUR]
    assert min(radius for radius, _ in blurs) < 0.2
    assert max(radius for radius, _ in blurs) > 0.95
    wide = 0
    for result, (radius, _) in zip(augmented("view", blur=blurs), blurs, strict=True):
        bound = WIDE_BLUR if radius > 0.9 else VIEW_BLUR
        assert bound.holds(result, pillow_blur(IMAGE, radius)), radius
        if radius > 0.5:
            wide += 1
            assert not VIEW_BLUR.holds(result, IMAGE), radius
            assert not VIEW_BLUR.holds(result, pillow_blur(IMAGE, 2 * radius)), radius
            assert not VIEW_BLUR.holds(result, pillow_blur(IMAGE, radius / 2)), radius
    assert wide >= 8


# Measured: 1 and 0.12. Without a sigma, OpenCV takes (1, 2, 1) / 4 and (1, 4, 6, 4, 1) / 16 for 8-bit images, and not
# the Gaussians of its own rule: their weights differ by 0.011 and less.
STRONG_BLUR = Bound(1, 0.15)


@pytest.mark.parametrize("kernel", [3, 5])
def test_a_strong_crops_blur_is_opencvs_of_a_kernel_without_a_sigma(kernel: int) -> None:
    blurs = {one.strong_blur[1]: one.strong_blur for one in drawn(40)}
    (result,) = augmented("strong", strong_blur=[blurs[kernel]])
    assert STRONG_BLUR.holds(result, cv2.GaussianBlur(IMAGE, (kernel, kernel), 0))
    for wrong in (
        IMAGE,
        cv2.GaussianBlur(IMAGE, (8 - kernel, 8 - kernel), 0),
        cv2.GaussianBlur(IMAGE, (kernel, kernel), 1.5),
        cv2.blur(IMAGE, (kernel, kernel)),
    ):
        assert not STRONG_BLUR.holds(result, wrong)


NUM_BOXES = 4000
Box = tuple[int, int, int, int]


class Ranges(NamedTuple):
    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    log_uniform: bool = True
    centred: bool = False


def torchvisions_box(rng: random.Random, width: int, height: int, ranges: Ranges) -> Box:
    """RandomResizedCrop.get_params as torchvision publishes it: top, left, height, width."""
    for _ in range(10):
        area = width * height * rng.uniform(*ranges.scale)
        low, high = ranges.ratio
        ratio = math.exp(rng.uniform(math.log(low), math.log(high))) if ranges.log_uniform else rng.uniform(low, high)
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            if ranges.centred:
                return (height - h) // 2, (width - w) // 2, h, w
            return rng.randint(0, height - h), rng.randint(0, width - w), h, w
    if width / height < ranges.ratio[0]:
        w, h = width, round(width / ranges.ratio[0])
    elif width / height > ranges.ratio[1]:
        w, h = round(height * ranges.ratio[1]), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


def statistics(boxes: Sequence[Box]) -> NDArray[np.float64]:
    """Area in pixels, width over height, left and top, a row each."""
    top, left, height, width = np.array(boxes, np.float64).T
    return np.stack([width * height, width / height, left, top])


def distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Kolmogorov and Smirnov's, of two samples: the largest difference of their distribution functions."""
    values = np.concatenate([one, other])
    cdfs = [np.searchsorted(np.sort(sample), values, side="right") / len(sample) for sample in (one, other)]
    return float(np.abs(cdfs[0] - cdfs[1]).max())


# What samples of one distribution exceed once in a thousand times.
THRESHOLD = math.sqrt(-math.log(1e-3 / 2) / 2) * math.sqrt(2 / NUM_BOXES)


def distances(size: tuple[int, int], scale: tuple[float, float], theirs: Ranges) -> list[float]:
    """Between fastuda's boxes in a view of `size`, at an area share in `scale`, and torchvision's under `theirs`."""
    views, jitter, rng = Views(crop_scale=scale), Jitter(), random.Random(0)
    ours = [draw_augmentation(0, "source", g, size, 1, views, jitter).box for g in range(NUM_BOXES)]
    expected = [torchvisions_box(rng, *size, theirs) for _ in range(NUM_BOXES)]
    return [distance(*pair) for pair in zip(statistics(ours), statistics(expected), strict=True)]


VIEW_SIZES = [(1280, 720), (1280, 640)]


# From a share of 0.6 on, most views find no box in ten attempts and fall back on the centred one.
@pytest.mark.parametrize("scale", [(0.2, 1.0), (0.6, 1.0)])
@pytest.mark.parametrize("size", VIEW_SIZES)
def test_boxes_are_spread_as_torchvision_spreads_them(size: tuple[int, int], scale: tuple[float, float]) -> None:
    assert max(distances(size, scale, Ranges(scale))) < THRESHOLD


@pytest.mark.parametrize(
    ("theirs", "statistic"),
    [
        (Ranges(log_uniform=False), 1),
        (Ranges(scale=(0.4, 1.0)), 0),
        (Ranges(scale=(0.2, 0.5)), 0),
        (Ranges(ratio=(0.8, 1.25)), 1),
        (Ranges(centred=True), 2),
        (Ranges(centred=True), 3),
    ],
    ids=["uniform ratio", "shares from 0.4", "shares to 0.5", "narrower ratios", "left centred", "top centred"],
)
@pytest.mark.parametrize("size", VIEW_SIZES)
def test_boxes_spread_otherwise_are_told_apart(size: tuple[int, int], theirs: Ranges, statistic: int) -> None:
    assert distances(size, (0.2, 1.0), theirs)[statistic] > THRESHOLD
