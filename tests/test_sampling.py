"""Orders and augmentations: what is the same, what differs, and how the random choices are spread."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from fastuda.data.loading.sampling import NO_BLUR, NO_COLOUR, Augmentation, DomainName, Schedule, draw_augmentation
from fastuda.recipe import Jitter, Views

VIEW = (1280, 640)
NUM_DRAWS = 6000


def order(schedule: Schedule, iterations: range) -> list[int]:
    return [sample for iteration in iterations for sample in schedule.samples(iteration)]


def test_every_epoch_shows_every_sample_once() -> None:
    shown = order(Schedule(10, 2, seed=0, domain="source"), range(15))
    for epoch in range(3):
        assert sorted(shown[10 * epoch : 10 * epoch + 10]) == list(range(10))


def test_a_batch_that_straddles_two_epochs_ends_one_and_begins_the_next() -> None:
    shown = order(Schedule(7, 3, seed=0, domain="source"), range(14))
    for epoch in range(6):
        assert sorted(shown[7 * epoch : 7 * epoch + 7]) == list(range(7))


def test_a_batch_may_be_larger_than_the_data_set() -> None:
    shown = order(Schedule(2, 5, seed=0, domain="target"), range(4))
    for epoch in range(10):
        assert sorted(shown[2 * epoch : 2 * epoch + 2]) == [0, 1]


@pytest.mark.parametrize(
    "other",
    [
        order(Schedule(50, 1, seed=0, domain="source"), range(50, 100)),
        order(Schedule(50, 1, seed=1, domain="source"), range(50)),
        order(Schedule(50, 1, seed=0, domain="target"), range(50)),
        list(range(50)),
    ],
    ids=["the next epoch", "another seed", "the other domain", "the order on disk"],
)
def test_the_order_is_another_than_that_of(other: list[int]) -> None:
    shown = order(Schedule(50, 1, seed=0, domain="source"), range(50))
    assert sum(a == b for a, b in zip(shown, other, strict=True)) < 10


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_ranks_share_out_the_order_that_one_rank_would_see(num_ranks: int) -> None:
    alone = Schedule(11, 2 * num_ranks, seed=4, domain="target")
    ranks = [Schedule(11, 2, seed=4, domain="target", rank=rank, num_ranks=num_ranks) for rank in range(num_ranks)]
    for iteration in range(20):
        assert [s for rank in ranks for s in rank.samples(iteration)] == alone.samples(iteration)
        assert [g for rank in ranks for g in rank.positions(iteration)] == alone.positions(iteration)


def test_an_iterations_samples_do_not_depend_on_what_was_asked_before() -> None:
    onwards = Schedule(7, 3, seed=0, domain="source")
    continued = {iteration: onwards.samples(iteration) for iteration in range(30)}
    assert all(Schedule(7, 3, seed=0, domain="source").samples(i) == continued[i] for i in (0, 6, 7, 29))
    assert [onwards.samples(i) for i in (29, 3, 20, 0)] == [continued[i] for i in (29, 3, 20, 0)]


def draw(position: int, seed: int = 0, domain: DomainName = "source", **views: Any) -> Augmentation:
    jitter = views.pop("jitter", Jitter())
    return draw_augmentation(seed, domain, position, views.pop("size", VIEW), 19, Views(**views), jitter)


@pytest.fixture(scope="module")
def draws() -> list[Augmentation]:
    return [draw(position) for position in range(NUM_DRAWS)]


def same(a: Augmentation, b: Augmentation) -> bool:
    return all(
        np.array_equal(one, other) for one, other in zip(dataclasses.astuple(a), dataclasses.astuple(b), strict=True)
    )


def test_an_augmentation_follows_from_seed_domain_and_position_alone() -> None:
    first = draw(17)
    draw(18)
    assert same(draw(17), first)
    for other in (draw(18), draw(17, seed=1), draw(17, domain="target")):
        assert not np.array_equal(other.class_keys, first.class_keys)
        assert other.box != first.box


def share_of(draws: Sequence[Augmentation], test: Callable[[Augmentation], bool]) -> float:
    return sum(test(one) for one in draws) / len(draws)


# Five standard deviations of a share of 6000 draws are at most 0.033.
SHARES: list[tuple[str, float, Callable[[Augmentation], bool]]] = [
    ("flip", 0.5, lambda a: a.flip == 1),
    ("not flip", 0.5, lambda a: a.flip == 0),
    # Of the blurs drawn, a radius below 0.05 would change nothing and is left out.
    ("blur", 0.5 * 0.95, lambda a: a.blur != NO_BLUR),
    ("jitter", 0.8, lambda a: a.colour[:5] != NO_COLOUR[:5]),
    ("grey", 0.2, lambda a: a.colour[5] == 1),
    ("grey and no jitter", 0.2 * 0.2, lambda a: a.colour == (*NO_COLOUR[:5], 1)),
    ("strong blur", 0.5, lambda a: a.strong_blur != NO_BLUR),
    ("strong blur of 3", 1 / 6, lambda a: a.strong_blur[1] == 3),
    ("strong blur of 5", 1 / 3, lambda a: a.strong_blur[1] == 5),
    ("both blurs", 0.5 * 0.475, lambda a: a.blur != NO_BLUR and a.strong_blur != NO_BLUR),
    ("flip and jitter", 0.4, lambda a: a.flip == 1 and a.colour[:5] != NO_COLOUR[:5]),
    ("view colour", 0.0, lambda a: a.view_colour != NO_COLOUR),
]


@pytest.mark.parametrize(("what", "share", "test"), SHARES, ids=[s[0] for s in SHARES])
def test_each_change_comes_as_often_as_the_protocol_says(
    what: str, share: float, test: Callable[[Augmentation], bool], draws: list[Augmentation]
) -> None:
    assert share_of(draws, test) == pytest.approx(share, abs=0.033 if share else 0)


def distance_from_uniform(values: Sequence[float], low: float, high: float) -> float:
    """Kolmogorov-Smirnov distance from U(low, high)."""
    ordered = (np.sort(values) - low) / (high - low)
    steps = np.arange(len(ordered) + 1) / len(ordered)
    return float(max(np.abs(steps[1:] - ordered).max(), np.abs(steps[:-1] - ordered).max()))


def bound(num_values: int) -> float:
    """What the distance of a right distribution exceeds once in five million times."""
    return 2.84 / math.sqrt(num_values)


@pytest.mark.parametrize(
    ("place", "low", "high"), [(0, 0.8, 1.2), (1, -51.0, 51.0), (2, -20, 20), (3, -30, 30), (4, -20, 20)]
)
def test_colour_changes_are_spread_evenly_over_their_range(
    place: int, low: float, high: float, draws: list[Augmentation]
) -> None:
    values = [a.colour[place] for a in draws if a.colour[:5] != NO_COLOUR[:5]]
    assert low <= min(values)
    assert max(values) <= high
    assert distance_from_uniform(values, low, high) < bound(len(values))


def test_colour_changes_do_not_depend_on_one_another(draws: list[Augmentation]) -> None:
    values = np.array([a.colour[:5] for a in draws if a.colour[:5] != NO_COLOUR[:5]])
    correlation = np.corrcoef(values.T)
    assert np.abs(correlation - np.eye(5)).max() < 5 / math.sqrt(len(values))


def test_a_blurs_radius_is_spread_evenly_and_its_window_holds_three_of_them(draws: list[Augmentation]) -> None:
    blurs = [a.blur for a in draws if a.blur != NO_BLUR]
    assert distance_from_uniform([sigma for sigma, _ in blurs], 0.05, 1) < bound(len(blurs))
    assert all(window == 2 * math.ceil(3 * sigma) + 1 for sigma, window in blurs)


def test_a_strong_blurs_radius_is_opencvs_for_its_kernel(draws: list[Augmentation]) -> None:
    found = {kernel: sigma for sigma, kernel in (a.strong_blur for a in draws)}
    assert found == {1: 1.0, 3: pytest.approx(0.8), 5: pytest.approx(1.1)}


def test_class_keys_are_uniform_numbers_one_a_class(draws: list[Augmentation]) -> None:
    keys = np.stack([a.class_keys for a in draws[:300]])
    assert keys.shape == (300, 19)
    assert keys.dtype == np.float32
    assert distance_from_uniform(keys.ravel().tolist(), 0, 1) < bound(keys.size)


def test_the_boxes_area_and_ratio_are_uniform_where_every_shape_fits() -> None:
    boxes = [draw(g, size=(1000, 1000), crop_scale=(0.2, 0.5)).box for g in range(NUM_DRAWS)]
    shares = [height * width / 1e6 for _, _, height, width in boxes]
    ratios = [math.log(width / height) for _, _, height, width in boxes]
    assert distance_from_uniform(shares, 0.2, 0.5) < bound(NUM_DRAWS)
    assert distance_from_uniform(ratios, math.log(3 / 4), math.log(4 / 3)) < bound(NUM_DRAWS)
    assert abs(np.corrcoef(shares, ratios)[0, 1]) < 5 / math.sqrt(NUM_DRAWS)


def test_the_ratio_is_width_over_height() -> None:
    boxes = [draw(g, size=(1000, 1000), crop_scale=(0.2, 0.25), crop_ratio=(2, 4)).box for g in range(200)]
    assert 1.99 <= min(width / height for _, _, height, width in boxes) < 2.1
    assert 3.9 < max(width / height for _, _, height, width in boxes) <= 4.02


def test_the_box_lies_anywhere_it_fits_with_equal_chance() -> None:
    boxes = [draw(g, crop_scale=(0.2, 0.3)).box for g in range(NUM_DRAWS)]
    tops = [top / (640 - height) for top, _, height, _ in boxes]
    lefts = [left / (1280 - width) for _, left, _, width in boxes]
    assert distance_from_uniform(tops, 0, 1) < bound(NUM_DRAWS)
    assert distance_from_uniform(lefts, 0, 1) < bound(NUM_DRAWS)
    assert (min(tops), max(tops), min(lefts), max(lefts)) == (0, 1, 0, 1)


def test_the_box_is_inside_the_view(draws: list[Augmentation]) -> None:
    for top, left, height, width in (a.box for a in draws):
        assert 0 <= top < top + height <= 640
        assert 0 <= left < left + width <= 1280


def random_resized_crop(rng: random.Random, width: int, height: int) -> tuple[float, float, float, float]:
    """Torchvision's definition, written again: area share, log ratio and place of one box that fitted."""
    while True:
        area = rng.uniform(0.2, 1.0) * width * height
        log_ratio = rng.uniform(math.log(3 / 4), math.log(4 / 3))
        w, h = math.sqrt(area * math.exp(log_ratio)), math.sqrt(area / math.exp(log_ratio))
        if w <= width and h <= height:
            return area / (width * height), log_ratio, rng.uniform(0, height - h), rng.uniform(0, width - w)


def test_boxes_of_the_protocols_view_are_spread_as_random_resized_crop_spreads_them(draws: list[Augmentation]) -> None:
    rng = random.Random(0)
    expected = np.array([random_resized_crop(rng, *VIEW) for _ in range(NUM_DRAWS)])
    found = np.array([(h * w / (1280 * 640), math.log(w / h), top, left) for top, left, h, w in (a.box for a in draws)])
    for one, other in zip(expected.T, found.T, strict=True):
        pooled = np.sort(np.concatenate([one, other]))
        cdfs = [np.searchsorted(np.sort(x), pooled, side="right") / NUM_DRAWS for x in (one, other)]
        assert np.abs(cdfs[0] - cdfs[1]).max() < bound(NUM_DRAWS) * math.sqrt(2)


@pytest.mark.parametrize(
    ("size", "box"),
    [((1000, 30), (0, 480, 30, 40)), ((30, 1000), (480, 0, 40, 30)), ((40, 40), (0, 0, 40, 40))],
    ids=["very wide", "very tall", "square"],
)
def test_where_no_box_fits_the_largest_centred_one_is_taken(
    size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    # A share of 1 fits only a view whose ratio is drawn exactly, which never happens.
    assert draw(0, size=size, crop_scale=(1.0, 1.0)).box == box


def test_the_views_size_is_width_then_height() -> None:
    boxes = [draw(g, size=(200, 50)).box for g in range(50)]
    assert max(left + width for _, left, _, width in boxes) > 50
    assert max(top + height for top, _, height, _ in boxes) <= 50


@pytest.mark.parametrize("domain", ["source", "target"])
def test_the_source_view_gets_colours_as_often_as_asked(domain: DomainName) -> None:
    jittered = [draw(g, domain=domain, source_jitter=0.3) for g in range(NUM_DRAWS)]
    assert share_of(jittered, lambda a: a.view_colour != NO_COLOUR) == pytest.approx(0.3, abs=0.033)
    assert same(dataclasses.replace(jittered[5], view_colour=NO_COLOUR), draw(5, domain=domain))


def test_no_probability_means_no_change() -> None:
    calm = Jitter(probability=0, grey=0, blur=0)
    for g in range(200):
        one = draw(g, flip=0, blur=0, jitter=calm)
        assert (one.flip, one.blur, one.strong_blur) == (0, NO_BLUR, NO_BLUR)
        assert one.colour == one.view_colour == NO_COLOUR


def test_a_largest_kernel_of_seven_draws_three_half_as_often_as_five_or_seven() -> None:
    kernels = [draw(g, jitter=Jitter(blur=1, blur_kernel=7)).strong_blur[1] for g in range(NUM_DRAWS)]
    assert set(kernels) == {3, 5, 7}
    for kernel, share in ((3, 0.2), (5, 0.4), (7, 0.4)):
        assert kernels.count(kernel) / NUM_DRAWS == pytest.approx(share, abs=0.033)


def test_cut_crops_are_windows_of_the_crops_size_anywhere() -> None:
    views = Views(crop="cut", crop_size=(512, 400))
    boxes = [draw_augmentation(0, "target", g, (640, 480), 19, views, Jitter()).box for g in range(4000)]
    assert {(height, width) for _, _, height, width in boxes} == {(400, 512)}
    tops, lefts = {top for top, *_ in boxes}, {left for _, left, *_ in boxes}
    assert (tops, lefts) == (set(range(81)), set(range(129)))
    whole = draw_augmentation(0, "target", 0, (512, 400), 19, views, Jitter())
    assert whole.box == (0, 0, 400, 512)


def test_cutting_changes_no_other_draw() -> None:
    one = draw_augmentation(3, "source", 5, VIEW, 19, Views(crop="cut"), Jitter())
    again = draw_augmentation(3, "source", 5, VIEW, 19, Views(crop="cut"), Jitter())
    other = draw_augmentation(3, "source", 5, VIEW, 19, Views(), Jitter())
    assert one.box == again.box != other.box
    assert (one.flip, one.blur) == (other.flip, other.blur)
