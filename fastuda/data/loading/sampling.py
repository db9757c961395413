"""Which sample comes when, and with which random augmentation: pure functions of seed and position.

Nothing here has state. The sample at position g of a domain, and every random number of its
augmentation, follow from (seed, domain, g) alone, so that a resumed run continues bit for bit, any
number of ranks sees one common order, and a sample's name can be told from an iteration's number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fastuda.data.loading.rare_classes import RareClasses
from fastuda.recipe import Jitter, Views

DomainName = Literal["source", "target"]
_STREAM = {"source": 1, "target": 2}
_ORDER, _AUGMENTATION, _JOINED_ORDER = 0, 1, 2
_CROP_ATTEMPTS = 10


@dataclass(frozen=True)
class Shards:
    """Samples that are read shard by shard: an epoch is shuffled twice, its shards, and the samples of a few of them.

    Every rank of a job passes the shards in one order, at about the same time; a machine reads each once an epoch from
    where they lie, and its other ranks out of its memory.
    """

    members: tuple[NDArray[np.int64], ...]
    """By shard the numbers of its samples."""
    mixed: int
    """Neighbours in that order whose samples are shuffled among one another."""

    def order(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """An epoch: every sample once."""
        shuffled = rng.permutation(len(self.members))
        pools = [shuffled[start : start + self.mixed] for start in range(0, len(shuffled), self.mixed)]
        return np.concatenate([rng.permutation(np.concatenate([self.members[i] for i in pool])) for pool in pools])

    @property
    def a_pool(self) -> int:
        """Samples of a pool, about."""
        return max(1, self.mixed * sum(map(len, self.members)) // len(self.members))


@dataclass
class Schedule:
    """The order of one domain's samples: reshuffled each epoch, dealt out to the ranks in turn.

    Position g = (iteration · num_ranks + rank) · batch_size + place in the batch; epoch g // num_samples. Where
    `num_joined` further samples come behind the `num_samples` (few labels of the target), every second position is one
    of theirs, and both have epochs of their own.
    """

    num_samples: int
    batch_size: int
    seed: int
    domain: DomainName
    rank: int = 0
    num_ranks: int = 1
    num_joined: int = 0
    rare: RareClasses | None = None
    """Draws the samples in the epochs' place, but for joined ones."""
    shards: Shards | None = None
    """How the samples lie in shards, whose order an epoch's then is; None for single files."""
    joined_shards: Shards | None = None
    """Likewise of the joined ones, numbered from 0 on."""
    _orders: dict[tuple[int, int], NDArray[np.int64]] = field(default_factory=dict, repr=False)

    def positions(self, iteration: int) -> list[int]:
        """The batch's positions in the domain's endless sequence."""
        first = (iteration * self.num_ranks + self.rank) * self.batch_size
        return list(range(first, first + self.batch_size))

    def samples(self, iteration: int) -> list[int]:
        """The batch's sample numbers, 0 … num_samples − 1."""
        return [self._sample(position) for position in self.positions(iteration)]

    def soon(self, iteration: int) -> list[int]:
        """Samples of any rank that are half a pool of shards further than this iteration's; none without shards."""
        if self.shards is None or self.rare is not None:
            return []
        ahead = self.shards.a_pool // 2 * (2 if self.num_joined else 1)
        batch = self.num_ranks * self.batch_size
        first = iteration * batch + ahead
        return [self._sample(position) for position in range(first, first + batch)]

    def is_joined(self, position: int) -> bool:
        """Whether a position is for one of the joined samples."""
        return self.num_joined > 0 and position % 2 == 1

    def _sample(self, position: int) -> int:
        if self.is_joined(position):
            return self.num_samples + self._shuffled(position // 2, self.num_joined, _JOINED_ORDER)
        if self.rare is not None:
            return self.rare.draw(position)[1]
        return self._shuffled(position // 2 if self.num_joined else position, self.num_samples, _ORDER)

    def _shuffled(self, place: int, count: int, kind: int) -> int:
        """The sample at a place of an endless sequence of epochs."""
        epoch = place // count
        if (kind, epoch) not in self._orders:
            rng = np.random.default_rng((self.seed, _STREAM[self.domain], kind, epoch))
            # A batch can straddle two epochs, so the one before is kept.
            kept = {known: order for known, order in self._orders.items() if known[0] != kind or known[1] == epoch - 1}
            shards = self.shards if kind == _ORDER else self.joined_shards
            order = rng.permutation(count) if shards is None else shards.order(rng)
            self._orders = {**kept, (kind, epoch): order}
        return int(self._orders[kind, epoch][place % count])


@dataclass(frozen=True)
class Augmentation:
    """One sample's random choices, as the DALI graph reads them."""

    flip: int
    """1 mirrors the view left to right."""
    blur: tuple[float, int]
    """The view's Gaussian blur: sigma in pixels, window in pixels (1: none)."""
    box: tuple[int, int, int, int]
    """Crop in view pixels, after the flip: top, left, height, width."""
    colour: tuple[float, ...]
    """The strong crop: see `COLOUR_FIELDS`."""
    strong_blur: tuple[float, int]
    """The strong crop's blur: sigma, window."""
    view_colour: tuple[float, ...]
    """Colours of the source view when `views.source_jitter` is set; else no change."""
    class_keys: NDArray[np.float32]
    """Uniform random [num_classes]: the present classes with the smallest keys are pasted (row 7)."""


COLOUR_FIELDS = ("contrast", "brightness", "hue", "saturation", "value", "grey")
"""contrast: factor; brightness: added, of 255; hue: OpenCV units; saturation, value: added, of 255; grey: 0 or 1."""
NO_COLOUR = (1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
NO_BLUR = (1.0, 1)


def draw_augmentation(
    seed: int,
    domain: DomainName,
    position: int,
    view_size: tuple[int, int],
    num_classes: int,
    views: Views,
    jitter: Jitter,
) -> Augmentation:
    """The augmentation of position `position`; `view_size` is (width, height). Protocol rows 1, 2, 5, 6, 7."""
    rng = np.random.default_rng((seed, _STREAM[domain], _AUGMENTATION, position))
    flip = int(rng.random() < views.flip)
    blurred = rng.random() < views.blur
    sigma = rng.random() * views.blur_radius
    box = draw_box(rng, view_size, views)
    colour = _colour(rng, jitter, jitter.probability)
    strong_blur = _kernel_blur(rng, jitter)
    jittered = rng.random() < views.source_jitter
    view_colour = _colour(rng, jitter, 1.0)
    return Augmentation(
        flip=flip,
        blur=(sigma, 2 * math.ceil(3 * sigma) + 1) if blurred and sigma > 0.05 else NO_BLUR,
        box=box,
        colour=colour,
        strong_blur=strong_blur,
        view_colour=view_colour if jittered else NO_COLOUR,
        class_keys=rng.random(num_classes, dtype=np.float32),
    )


def draw_box(rng: np.random.Generator, view_size: tuple[int, int], views: Views) -> tuple[int, int, int, int]:
    """A crop in a view of (width, height): top, left, height, width.

    RandomResizedCrop's box, of uniform area share, log-uniform ratio and uniform place (protocol row 5); or with
    `views.crop` = `cut` a window of `views.crop_size` at a uniform place.
    """
    width, height = view_size
    if views.crop == "cut":
        crop_width, crop_height = views.crop_size
        top, left = int(rng.integers(height - crop_height + 1)), int(rng.integers(width - crop_width + 1))
        return top, left, crop_height, crop_width
    log_ratio = np.log(views.crop_ratio)
    for _ in range(_CROP_ATTEMPTS):
        area = width * height * rng.uniform(*views.crop_scale)
        ratio = math.exp(rng.uniform(*log_ratio))
        crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(rng.integers(height - crop_height + 1))
            left = int(rng.integers(width - crop_width + 1))
            return top, left, crop_height, crop_width
    # No box of such a shape fits: the largest centred one within the range of ratios.
    ratio = min(max(width / height, views.crop_ratio[0]), views.crop_ratio[1])
    crop_width = max(1, min(width, round(height * ratio)))
    crop_height = max(1, min(height, round(width / ratio)))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def _colour(rng: np.random.Generator, jitter: Jitter, probability: float) -> tuple[float, ...]:
    applied = rng.random() < probability
    contrast, brightness, hue, saturation, value = rng.uniform(-1, 1, 5)
    grey = float(rng.random() < jitter.grey)
    if not applied:
        return (*NO_COLOUR[:5], grey)
    return (
        1 + float(contrast) * jitter.contrast,
        float(brightness) * jitter.brightness * 255,
        float(hue) * jitter.hue,
        float(saturation) * jitter.saturation,
        float(value) * jitter.value,
        grey,
    )


def _kernel_blur(rng: np.random.Generator, jitter: Jitter) -> tuple[float, int]:
    applied = rng.random() < jitter.blur
    # OpenCV takes odd sizes alone: an even one becomes the next, so that 3 is half as likely as each other.
    kernel = 3 + 2 * ((int(rng.integers(jitter.blur_kernel - 2)) + 1) // 2)
    # OpenCV's rule for the sigma of a kernel given by its size.
    return (0.3 * ((kernel - 1) * 0.5 - 1) + 0.8, kernel) if applied else NO_BLUR
