"""Rare-class sampling: the published distribution by a statistical test, its images and crops, and whole runs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from whole_runs import run, run_killed, saved_state

from fastuda.data.loading.rare_classes import RareClasses
from fastuda.data.loading.sampling import Schedule, draw_augmentation
from fastuda.data.loading.training_loader import TrainingLoader
from fastuda.data.packing.pack import Packed
from fastuda.errors import FastudaError
from fastuda.recipe import Recipe, Sampling

CPU = torch.device("cpu")
NUM_DRAWS = 20_000
PIXELS = np.array(
    [  # three classes and what is ignored; class 1 is rare, class 2 rarer
        [90, 10, 0, 0],
        [95, 0, 5, 0],
        [80, 20, 0, 50],
        [97, 2, 1, 0],
        [70, 0, 4, 26],
    ]
)


def of(temperature: float = 0.2, *, min_pixels: int = 4, seed: int = 0) -> RareClasses:
    settings = Sampling(rare_classes=True, temperature=temperature, min_pixels=min_pixels, min_crop_pixels=6)
    return RareClasses.of(PIXELS, settings, seed)


def expected_shares(temperature: float) -> list[float]:
    """exp((1 − f_c) / T) / Σ, f_c being the class's share of all labelled pixels (DAFormer, eq. 7, 8)."""
    labelled = PIXELS[:, :3].sum()
    weights = [math.exp((1 - PIXELS[:, c].sum() / labelled) / temperature) for c in range(3)]
    return [weight / sum(weights) for weight in weights]


def chi_square(counts: list[int], shares: list[float]) -> float:
    return sum((n - sum(counts) * p) ** 2 / (sum(counts) * p) for n, p in zip(counts, shares, strict=True))


@pytest.mark.parametrize("temperature", [0.2, 1.0, 50.0])
def test_classes_are_drawn_as_the_formula_says(temperature: float) -> None:
    rare = of(temperature)
    drawn = Counter(rare.draw(position)[0] for position in range(NUM_DRAWS))
    counts, shares = [drawn[c] for c in range(3)], expected_shares(temperature)
    assert rare.probabilities == pytest.approx(shares)
    assert chi_square(counts, shares) < 13.8  # the 0.1 % point of two degrees of freedom
    even = chi_square(counts, [1 / 3] * 3)
    assert (even > 100) == (temperature < 10)


def test_the_log_says_how_often_each_is_drawn() -> None:
    road, rider, train = expected_shares(0.2)
    told = f"train {100 * train:.3g} %, rider {100 * rider:.3g} %, road {100 * road:.3g} %"
    assert of(0.2).told(["road", "rider", "train"]) == told


def test_a_low_temperature_draws_the_rarest_alone_and_does_not_overflow() -> None:
    assert {of(1e-4).draw(position)[0] for position in range(200)} == {2}


def test_images_that_show_enough_of_the_class_are_equally_likely() -> None:
    rare = of(1.0)
    pairs = Counter(rare.draw(position) for position in range(NUM_DRAWS))
    for train_id, images in ((0, [0, 1, 2, 3, 4]), (1, [0, 2]), (2, [1, 4])):
        assert {image for c, image in pairs if c == train_id} == set(images)
        counts = [pairs[train_id, image] for image in images]
        assert chi_square(counts, [1 / len(images)] * len(images)) < 18.5  # 0.1 % of four degrees of freedom


def test_draws_follow_from_seed_and_position_alone() -> None:
    rare = of()
    drawn = [rare.draw(position) for position in range(50)]
    assert [of().draw(position) for position in reversed(range(50))] == drawn[::-1]
    assert [of(seed=1).draw(position) for position in range(50)] != drawn


def test_a_class_that_no_image_shows_enough_of_is_never_drawn() -> None:
    rare = of(1.0, min_pixels=15)
    assert {rare.draw(position)[0] for position in range(300)} == {0, 1}
    assert rare.probabilities.sum() == pytest.approx(1)
    with pytest.raises(FastudaError, match=r"no source image shows 1000 pixels of any class; lower sampling"):
        of(min_pixels=1000)


def test_the_order_of_one_rank_is_dealt_out_to_several() -> None:
    rare = of()
    alone = Schedule(5, 4, 0, "source", rare=rare)
    ranks = [Schedule(5, 2, 0, "source", rank, 2, rare=rare) for rank in range(2)]
    for iteration in range(20):
        assert [s for rank in ranks for s in rank.samples(iteration)] == alone.samples(iteration)


def label_with(train_id: int, place: tuple[slice, slice]) -> NDArray[np.uint8]:
    label = np.zeros((20, 30), np.uint8)
    label[place] = train_id
    return label


def test_crops_are_drawn_until_one_shows_the_class() -> None:
    rare = of(1e-4)  # class 2
    label = label_with(2, (slice(0, 5), slice(20, 30)))
    blind, asked = (10, 0, 10, 10), []

    def another(rng: np.random.Generator) -> tuple[int, int, int, int]:
        asked.append(rng.random())
        return (0, 15, 10, 10) if len(asked) == 3 else blind

    assert rare.crop(0, (0, 18, 8, 12), False, label, another) == (0, 18, 8, 12)
    assert asked == []
    assert rare.crop(0, blind, False, label, another) == (0, 15, 10, 10)
    assert len(asked) == 3
    first = list(asked)
    asked.clear()
    rare.crop(0, blind, False, label, another)
    assert asked == first
    rare.crop(1, blind, False, label, another)
    assert asked[3:] != first


def test_the_tenth_crop_is_taken_whatever_it_shows_and_too_few_pixels_are_none() -> None:
    rare, calls = of(1e-4), [0]
    label = label_with(2, (slice(0, 1), slice(0, 5)))  # five pixels, and six are asked for

    def another(_: np.random.Generator) -> tuple[int, int, int, int]:
        calls[0] += 1
        return (0, 0, 5, calls[0] + 5)

    assert rare.crop(0, (0, 0, 5, 5), False, label, another) == (0, 0, 5, 14)
    assert calls == [9]


def test_a_flipped_view_is_looked_at_flipped() -> None:
    rare, label = of(1e-4), label_with(2, (slice(0, 5), slice(0, 5)))
    right, left = (0, 20, 10, 10), (0, 0, 10, 10)
    assert rare.crop(0, right, True, label, lambda _: left) == right
    assert rare.crop(0, right, False, label, lambda _: left) == left


def made_packs(pack: Callable[..., Packed], recipe: Recipe) -> Packed:
    """Sixteen pictures; class 5 is in two of them, in a corner."""
    rng, labels = np.random.default_rng(0), []
    for i in range(16):
        label = np.zeros((32, 64), np.uint8)
        if i in (3, 11):
            label[:12, 52:] = 5
        labels.append(label)
    images = [rng.integers(0, 256, (32, 64, 3), np.uint8) for _ in range(16)]
    return pack(recipe, images, labels)


RARE = [
    *("sampling.rare_classes=true", "sampling.min_pixels=50", "sampling.min_crop_pixels=40", "views.blur=0"),
    *("views.source_size=[64, 32]", "views.target_size=[64, 32]", "views.crop_size=[32, 32]", "train.batch_size=2"),
]


def test_the_loader_shows_the_rare_class_in_its_crops(
    pack: Callable[..., Packed], tiny_recipe: Callable[..., Recipe]
) -> None:
    recipe = tiny_recipe(*RARE)
    packed = made_packs(pack, recipe)
    shown, fits = [], 0
    for batch in islice(TrainingLoader(packed, "source", recipe, CPU), 20):
        assert batch.label is not None
        for name, label, (top, _, height, width) in zip(batch.names, batch.label, batch.boxes.tolist(), strict=True):
            assert name in ("003", "011")
            shown.append(bool((label == 5).any()))
            fits += int(top < 12 and height * width > 0)
    assert sum(shown) >= 36  # of 40; ten boxes may all miss the corner
    plain = tiny_recipe(*RARE, "sampling.rare_classes=false")
    names = {name for batch in islice(TrainingLoader(packed, "source", plain, CPU), 8) for name in batch.names}
    assert len(names) == 16


def test_flips_colours_and_class_keys_are_those_without(
    pack: Callable[..., Packed], tiny_recipe: Callable[..., Recipe]
) -> None:
    recipe = tiny_recipe(*RARE)
    loader = TrainingLoader(made_packs(pack, recipe), "source", recipe, CPU, start_iteration=7)
    batch = next(loader)
    for place, position in enumerate((14, 15)):
        draw = draw_augmentation(0, "source", position, (64, 32), 19, recipe.views, recipe.jitter)
        assert np.array_equal(batch.class_keys[place].numpy(), draw.class_keys)
    assert batch.names == TrainingLoader.names_at(made_packs(pack, recipe), "source", recipe, 7)


def test_the_warm_up_and_the_target_keep_their_epochs(
    pack: Callable[..., Packed], tiny_recipe: Callable[..., Recipe]
) -> None:
    recipe = tiny_recipe(*RARE)
    packed = made_packs(pack, recipe)
    assert TrainingLoader(packed, "source", recipe, CPU, adapts=False).schedule.rare is None
    assert TrainingLoader(packed, "target", recipe, CPU).schedule.rare is None
    assert TrainingLoader(packed, "source", recipe, CPU).schedule.rare is not None
    warm = [name for i in range(8) for name in TrainingLoader.names_at(packed, "source", recipe, i, adapts=False)]
    assert sorted(warm) == packed.names


def test_a_killed_run_goes_on_in_the_same_bits(
    tmp_path: Path, tiny: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny("sampling.rare_classes=true", "sampling.min_pixels=20", "sampling.min_crop_pixels=10")
    run(recipe, tmp_path / "whole")
    run_killed(recipe, tmp_path / "killed", monkeypatch)
    expected, found = saved_state(tmp_path / "whole"), saved_state(tmp_path / "killed")
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    plain = tiny()
    run(plain, tmp_path / "plain")
    other = saved_state(tmp_path / "plain")
    assert any(not torch.equal(expected[key], other[key]) for key in expected)
