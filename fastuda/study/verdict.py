"""What a few paired gains can tell: their interval, a verdict, and how many seeds one would take."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

MOST_SEEDS = 100
"""Up to so many are counted; what needs more is told as that."""
_UPPER = 0.975
"""Student's t at this probability is half of a 95 % interval."""

Said = Literal["better", "worse", "nothing can be told yet", "one seed: nothing can be told"]


@dataclass(frozen=True)
class Verdict:
    """What the gains of one row over another, a seed each, say of rows of their kind."""

    said: Said
    interval: tuple[float, float] | None
    """The mean's 95 % interval, in the gains' unit; None of fewer than two."""
    seeds_needed: int | None
    """How many seeds in all tell a gain of this size and spread; None for more than `MOST_SEEDS`, of fewer than two."""

    def to_json(self) -> dict[str, Any]:
        """Numbers rounded to 1e-4, percent where gains are, and the verdict in words."""
        interval = None if self.interval is None else [round(end, 4) for end in self.interval]
        return {"verdict": self.said, "interval": interval, "seeds_needed": self.seeds_needed}


def verdict(gains: Sequence[float]) -> Verdict | None:
    """What paired gains tell, by Student's t; None of none.

    `better` and `worse`: the 95 % interval of their mean lies on one side of 0. It is that of one comparison, made
    once: of twenty rows that gain nothing, one is expected to look so.
    """
    count = len(gains)
    if count < 2:
        return Verdict("one seed: nothing can be told", None, None) if count else None
    mean, deviation = statistics.fmean(gains), statistics.stdev(gains)
    half = half_width(deviation, count)
    said: Said = "nothing can be told yet"
    if half < abs(mean):
        said = "better" if mean > 0 else "worse"
    return Verdict(said, (mean - half, mean + half), seeds_needed(mean, deviation))


def seeds_needed(mean: float, deviation: float) -> int | None:
    """The fewest seeds, two or more, that tell such a mean from 0; None for more than `MOST_SEEDS`."""
    return next((n for n in range(2, MOST_SEEDS + 1) if half_width(deviation, n) < abs(mean)), None)


def half_width(deviation: float, count: int) -> float:
    """Half of the 95 % interval of the mean of `count` values with this sample standard deviation."""
    return t_quantile(_UPPER, count - 1) * deviation / math.sqrt(count)


@cache
def t_quantile(probability: float, freedom: int) -> float:
    """The t below which Student's distribution with `freedom` degrees has this probability, from 0.5 to below 1."""
    if not 0.5 <= probability < 1:
        raise ValueError(f"a probability from 0.5 to below 1, not {probability}")
    low, high = 0.0, 1.0
    while t_probability(high, freedom) < probability:
        high *= 2
    while (middle := (low + high) / 2) not in (low, high):  # until no number lies between
        low, high = (middle, high) if t_probability(middle, freedom) < probability else (low, middle)
    return high


def t_probability(t: float, freedom: int) -> float:
    """How probable a value of at most `t` is under Student's distribution with a whole number of degrees of freedom.

    By the finite sums of Abramowitz and Stegun 26.7.3 and 26.7.4, with cos θ = 1 / √(1 + t² / freedom).
    """
    if freedom < 1:
        raise ValueError(f"one degree of freedom or more, not {freedom}")
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, cosine) if odd else (1.0, 1.0)
    if freedom == 1:
        total = 0.0
    for i in range(2 + odd, freedom - 1, 2):
        term *= cosine * cosine * (i - 1) / i
        total += term
    within = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return (1 + within) / 2
