"""choose_classes on label maps of a row or two: how many are chosen, which, and with what chances."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from drawings import label_map
from torch import Tensor

from fastuda_kernels.masked_mix import choose_classes


def chosen_classes(labels: Tensor, keys: list[float], **settings: Any) -> list[int]:
    return choose_classes(labels, torch.tensor([keys]), **settings)[0].nonzero().flatten().tolist()


KEYS = [0.5, 0.4, 0.9, 0.1, 0.3, 0.2]


def test_half_of_the_classes_present_floored_those_with_the_smallest_keys() -> None:
    assert chosen_classes(label_map("01245"), KEYS) == [4, 5]
    assert chosen_classes(label_map("0124"), KEYS) == [1, 4]


def test_of_equal_keys_the_lower_class_is_chosen() -> None:
    assert chosen_classes(label_map("01245"), [0.5] * 6) == [0, 1]
    assert chosen_classes(label_map("5421"), [0.5, 0.7, 0.5, 0.1, 0.5, 0.5]) == [2, 4]
    labels = torch.arange(150, dtype=torch.uint8)[None, None]  # more than a sort keeps in order by chance
    assert chosen_classes(labels, [0.5] * 150) == [*range(75)]


def test_at_least_one_class_is_chosen() -> None:
    assert chosen_classes(label_map("222"), KEYS) == [2]


def test_another_fraction() -> None:
    assert chosen_classes(label_map("01245"), KEYS, fraction=0.8) == [0, 1, 4, 5]
    assert chosen_classes(label_map("01245"), KEYS, fraction=1.0) == [0, 1, 2, 4, 5]


def test_min_class_neither_counts_nor_chooses_what_is_below() -> None:
    # Without the bound 2 of 5 would be chosen; of classes 2, 4, 5 it is one.
    assert chosen_classes(label_map("01245"), KEYS, min_class=2) == [5]


def test_off_by_one_chooses_the_entry_before_each_class_drawn() -> None:
    # Drawn are 3 and 4 of the classes 0, 1, 3, 4: before them come 1 and 3.
    assert chosen_classes(label_map("0134"), KEYS, off_by_one=True) == [1, 3]
    # From class 3 on 3 alone is drawn, and what comes before it is too low to be drawn itself.
    assert chosen_classes(label_map("0134"), KEYS, min_class=3, off_by_one=True) == [1]


def test_off_by_one_can_choose_the_ignored_pixels_which_come_first() -> None:
    chosen = choose_classes(label_map("2255", "..99"), torch.tensor([KEYS]), off_by_one=True, fraction=1.0)[0]
    assert chosen.shape == (256,)
    assert chosen[:6].nonzero().flatten().tolist() == [2]
    # Of the values that are no class those present: all of them are the one entry.
    assert chosen[6:].nonzero().flatten().tolist() == [9 - 6, 255 - 6]


def test_off_by_one_goes_round_when_nothing_lies_below() -> None:
    assert chosen_classes(label_map("44"), KEYS, off_by_one=True) == [4]
    assert chosen_classes(label_map("2245"), [0.9, 0.9, 0.1, 0.9, 0.9, 0.9], off_by_one=True) == [5]


def test_off_by_one_without_any_candidate_chooses_nothing() -> None:
    for labels in (label_map("...."), label_map("0123")):
        assert chosen_classes(labels, KEYS, min_class=5, off_by_one=True) == []


# Present entries (-1 is ignored), and the chances measured on the released code (protocol row 7).
RELEASED_CHANCES = [
    ((-1, 0, 1, 2, 5, 7, 8, 10, 11, 13), {2: 0.5, 5: 0.5, 7: 0.5, 8: 0.5, 10: 0.5, 11: 0.5}),
    ((-1, 0, 1, 13), {1: 1.0}),
    ((0, 1, 2, 4, 10), {4: 1.0}),
    ((-1, 8, 13), {-1: 0.5, 8: 0.5}),
    ((8, 10, 13), {8: 1 / 3, 10: 1 / 3, 13: 1 / 3}),
    ((0, 1, 4), {}),
]


@pytest.mark.parametrize(("present", "chances"), RELEASED_CHANCES, ids=[str(one) for one, _ in RELEASED_CHANCES])
def test_chances_of_being_pasted_are_those_of_the_released_code(
    present: tuple[int, ...], chances: dict[int, float]
) -> None:
    num_draws = 4000
    labels = torch.tensor([[[255 if entry < 0 else entry for entry in present]]], dtype=torch.uint8)
    keys = torch.rand(num_draws, 19, generator=torch.Generator().manual_seed(0))
    chosen = choose_classes(labels.repeat(num_draws, 1, 1), keys, min_class=5, off_by_one=True)
    shares = {entry: chosen[:, entry % 256].float().mean().item() for entry in range(-1, 19)}
    # Four standard deviations of a share of 4000 draws.
    assert shares == {entry: pytest.approx(chances.get(entry, 0), abs=0.032) for entry in shares}
    certain = [entry for entry in shares if chances.get(entry, 0) in (0, 1)]
    assert {shares[entry] for entry in certain} <= {0.0, 1.0}


def test_ignored_pixels_and_values_beyond_the_classes_are_no_classes() -> None:
    assert chosen_classes(label_map("1..99"), KEYS) == [1]
    assert chosen_classes(label_map("13.99"), KEYS) == [3]


def test_an_image_without_any_class_chooses_none() -> None:
    assert chosen_classes(label_map("...."), KEYS) == []
    assert chosen_classes(label_map("0011"), KEYS, min_class=2) == []


def test_each_image_of_a_batch_chooses_for_itself() -> None:
    labels = torch.cat([label_map("0123"), label_map("4444")])
    chosen = choose_classes(labels, torch.tensor([KEYS, KEYS]))
    assert [row.nonzero().flatten().tolist() for row in chosen] == [[1, 3], [4]]


def test_every_pair_of_five_classes_is_equally_likely() -> None:
    num_draws = 4000
    labels = label_map("02357").repeat(num_draws, 1, 1)
    chosen = choose_classes(labels, torch.rand(num_draws, 8, generator=torch.Generator().manual_seed(0)))
    assert set(chosen.sum(1).tolist()) == {2}
    deviation = (0.1 * 0.9 / num_draws) ** 0.5
    for first, second in itertools.combinations((0, 2, 3, 5, 7), 2):
        share = (chosen[:, first] & chosen[:, second]).float().mean().item()
        assert share == pytest.approx(0.1, abs=4 * deviation)


def test_messages_name_the_argument_and_what_came() -> None:
    with pytest.raises(ValueError, match=r"keys must have shape \[1, any\], got \[2, 6\]"):
        choose_classes(label_map("0011"), torch.zeros(2, 6))
    with pytest.raises(TypeError, match=r"keys must be torch\.float32, got torch\.float64"):
        choose_classes(label_map("0011"), torch.zeros(1, 6, dtype=torch.float64))
