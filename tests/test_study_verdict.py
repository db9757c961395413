"""What paired gains can tell: Student's t against the printed table, intervals by hand, verdicts at their edges."""

from __future__ import annotations

import math

import pytest

from fastuda.study.verdict import MOST_SEEDS, Verdict, half_width, seeds_needed, t_probability, t_quantile, verdict

# Two-sided 95 % points of Student's t as tables print them, by degrees of freedom.
PRINTED = {
    1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 5: 2.5706, 6: 2.4469, 7: 2.3646, 8: 2.3060, 9: 2.2622, 10: 2.2281,
    11: 2.2010, 12: 2.1788, 13: 2.1604, 14: 2.1448, 15: 2.1314, 16: 2.1199, 17: 2.1098, 18: 2.1009, 19: 2.0930,
    20: 2.0860, 21: 2.0796, 22: 2.0739, 23: 2.0687, 24: 2.0639, 25: 2.0595, 26: 2.0555, 27: 2.0518, 28: 2.0484,
    29: 2.0452, 30: 2.0423, 40: 2.0211, 60: 2.0003, 120: 1.9799,
}  # fmt: skip
# One-sided points of other probabilities.
OTHERS = {(0.90, 1): 3.078, (0.95, 7): 1.895, (0.99, 3): 4.541, (0.995, 2): 9.925, (0.9995, 10): 4.587}


@pytest.mark.parametrize(("freedom", "printed"), PRINTED.items())
def test_t_is_the_printed_tables(freedom: int, printed: float) -> None:
    assert t_quantile(0.975, freedom) == pytest.approx(printed, abs=6e-5)


@pytest.mark.parametrize(("place", "printed"), OTHERS.items())
def test_t_of_other_probabilities(place: tuple[float, int], printed: float) -> None:
    assert t_quantile(*place) == pytest.approx(printed, abs=6e-4)


@pytest.mark.parametrize("freedom", [1, 2, 3, 8, 37])
def test_the_quantile_undoes_the_probability_and_that_is_symmetric(freedom: int) -> None:
    assert t_probability(0.0, freedom) == 0.5
    for t in (0.3, 1.7, 6.0):
        assert t_quantile(t_probability(t, freedom), freedom) == pytest.approx(t, rel=1e-9)
        assert t_probability(t, freedom) + t_probability(-t, freedom) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("arguments", [(0.4, 3), (1.0, 3), (0.975, 0)])
def test_what_has_no_quantile_is_refused(arguments: tuple[float, int]) -> None:
    with pytest.raises(ValueError, match=r"probability from 0\.5|degree of freedom"):
        t_quantile(*arguments)


def test_an_interval_by_hand() -> None:
    # Mean 2, sample deviation 1: 2 ± 4.3027 · 1 / √3.
    told = verdict([1.0, 2.0, 3.0])
    assert told is not None
    assert told.interval == pytest.approx((2 - 4.3027 / math.sqrt(3), 2 + 4.3027 / math.sqrt(3)), abs=1e-4)
    assert told.said == "nothing can be told yet"
    assert told.to_json()["interval"] == [-0.4841, 4.4841]


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        ([5.0, 6.0, 5.5], "better"),
        ([-5.0, -6.0, -5.5], "worse"),
        ([5.0, -6.0, 5.5], "nothing can be told yet"),
        ([0.0, 0.0, 0.0], "nothing can be told yet"),
        ([1.0, 1.0], "better"),
        ([7.0], "one seed: nothing can be told"),
    ],
)
def test_verdicts(gains: list[float], said: str) -> None:
    told = verdict(gains)
    assert told is not None
    assert told.said == said


def test_of_no_gain_there_is_no_verdict_and_one_seed_has_no_interval() -> None:
    assert verdict([]) is None
    assert verdict([3.0]) == Verdict("one seed: nothing can be told", None, None)


def test_the_seeds_needed_are_the_fewest_whose_interval_leaves_zero_out() -> None:
    # t · s / √n < 1 with s = 1: 2.7764 / √5 = 1.242, 2.5706 / √6 = 1.049, 2.4469 / √7 = 0.925.
    assert seeds_needed(1.0, 1.0) == seeds_needed(-1.0, 1.0) == 7
    told = verdict([1.0, 2.0, 3.0])
    assert told is not None
    assert (told.said, told.seeds_needed) == ("nothing can be told yet", 4)
    for mean, deviation in ((0.4, 1.0), (1.0, 0.3), (2.0, 5.0)):
        needed = seeds_needed(mean, deviation)
        assert needed is not None
        assert half_width(deviation, needed) < mean
        assert needed == 2 or half_width(deviation, needed - 1) >= mean


def test_beyond_a_bound_it_is_only_said_that_more_are_needed() -> None:
    assert seeds_needed(half_width(1.0, MOST_SEEDS) * 1.001, 1.0) == MOST_SEEDS
    assert seeds_needed(half_width(1.0, MOST_SEEDS), 1.0) is None
    assert seeds_needed(0.0, 1.0) is None
    assert seeds_needed(0.0, 0.0) is None


def test_a_verdict_says_better_just_when_no_more_seeds_are_needed_than_there_are() -> None:
    for third in (1.0, 2.0, 3.0, 4.0, 6.0, 9.0):
        gains = [2.0, 3.0, third]
        told = verdict(gains)
        assert told is not None
        assert (told.said == "better") == (told.seeds_needed is not None and told.seeds_needed <= len(gains))
