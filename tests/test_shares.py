"""What ranks read: disjoint shares that together are every sample once an epoch, for any number and start."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fastuda.data.loading.sampling import Schedule, Shards


@st.composite
def layouts(draw: st.DrawFn, count: int) -> Shards | None:
    """None for single files, or any way to deal `count` samples to shards."""
    if not draw(st.booleans()):
        return None
    num_shards = draw(st.integers(1, count))
    order = np.array(draw(st.permutations(range(count))), np.int64)
    return Shards(tuple(np.array_split(order, num_shards)), draw(st.integers(1, num_shards + 1)))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_shares_are_disjoint_and_complete_every_epoch(data: st.DataObject) -> None:
    num_samples, num_ranks = data.draw(st.integers(1, 40), "samples"), data.draw(st.integers(1, 9), "ranks")
    batch_size, start = data.draw(st.integers(1, 5), "batch"), data.draw(st.integers(0, 60), "start")
    num_joined = data.draw(st.one_of(st.just(0), st.integers(1, 12)), "joined")
    shards = data.draw(layouts(num_samples), "shards")
    joined = data.draw(layouts(num_joined), "joined shards") if num_joined else None
    ranks = [
        Schedule(
            num_samples, batch_size, 3, "source", rank, num_ranks, num_joined=num_joined, shards=shards,
            joined_shards=joined,
        )
        for rank in range(num_ranks)
    ]  # fmt: skip
    a_kind = 2 if num_joined else 1
    first, last = start, start + 3 * a_kind * max(num_samples, num_joined) // (num_ranks * batch_size) + 2
    seen: dict[int, int] = {}
    for iteration in range(first, last):
        for rank in ranks:
            positions, samples = rank.positions(iteration), rank.samples(iteration)
            assert len(positions) == len(samples) == batch_size
            assert not seen.keys() & set(positions)  # no other rank, and no other iteration, has read it
            seen |= dict(zip(positions, samples, strict=True))
    assert sorted(seen) == list(range(first * num_ranks * batch_size, last * num_ranks * batch_size))

    for is_joined in (False, True) if num_joined else (False,):
        count, offset = (num_joined, num_samples) if is_joined else (num_samples, 0)
        epochs: dict[int, list[int]] = {}
        for position, sample in seen.items():
            if ranks[0].is_joined(position) == is_joined:
                epochs.setdefault(position // a_kind // count, []).append(sample - offset)
        whole = [found for found in epochs.values() if len(found) == count]
        for found in epochs.values():
            assert max(Counter(found).values()) == 1  # at most once, where the range begins or ends amid an epoch
            assert set(found) <= set(range(count))
        for found in whole:
            assert sorted(found) == list(range(count))
        assert whole


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_share_is_the_same_whenever_a_rank_starts(data: st.DataObject) -> None:
    num_samples, num_ranks = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 9))
    rank, shards = data.draw(st.integers(0, num_ranks - 1)), data.draw(layouts(num_samples))
    given_order = data.draw(st.lists(st.integers(0, 80), min_size=2, max_size=8))

    def fresh() -> Schedule:
        return Schedule(num_samples, 2, 1, "target", rank, num_ranks, shards=shards)

    one = fresh()
    in_order = {iteration: one.samples(iteration) for iteration in sorted(given_order)}
    assert all(fresh().samples(iteration) == in_order[iteration] for iteration in given_order)
    other = fresh()
    assert all(other.samples(iteration) == in_order[iteration] for iteration in given_order)
