"""Random numbers of an iteration: splitmix64 by its printed definition, even, the same however they are asked for."""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch import Tensor

from fastuda.method.draws import Draws

ALL = 2**64 - 1


def iteration(number: int) -> Tensor:
    return torch.tensor(number)


def splitmix(state: int) -> int:
    """The output of splitmix64 in a state, as its authors print it, in Python's own integers."""
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & ALL
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & ALL
    return state ^ (state >> 31)


@pytest.mark.parametrize(("seed", "name", "number"), [(0, "masked", 0), (7, "cutmix", 249_999), (2**31 - 1, "", 3)])
def test_numbers_are_splitmix64s(seed: int, name: str, number: int) -> None:
    step = 0x9E3779B97F4A7C15
    key = int.from_bytes(hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest(), "big")
    start = splitmix((number * step + key) & ALL)
    expected = [(splitmix((k * step + start) & ALL) >> 40) / 2**24 for k in range(12)]
    found = Draws(seed, iteration(number)).uniform(name, (3, 4))
    assert found.dtype == torch.float32
    assert found.flatten().tolist() == expected


def test_every_call_of_an_iteration_gives_the_same() -> None:
    draws = Draws(3, iteration(5))
    assert torch.equal(draws.uniform("a", (2, 8)), draws.uniform("a", (2, 8)))
    assert torch.equal(draws.uniform("a", (2, 8)).flatten()[:5], draws.uniform("a", (5,)))


def test_seed_name_and_iteration_each_change_every_number() -> None:
    numbers = [
        Draws(seed, iteration(number)).uniform(name, (4096,))
        for seed, number, name in ((0, 0, "a"), (1, 0, "a"), (0, 1, "a"), (0, 0, "b"))
    ]
    for i, one in enumerate(numbers):
        for other in numbers[:i]:
            assert (one == other).sum() < 5
            assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1]) < 0.06


def test_numbers_are_even_and_neighbours_independent() -> None:
    found = torch.cat([Draws(0, iteration(k)).uniform("a", (20_000,)) for k in range(5)]).double()
    assert found.min() >= 0
    assert found.max() < 1
    counts = torch.histc(found, 100, 0, 1)
    chi_square = ((counts - 1000) ** 2 / 1000).sum()
    assert 60 < chi_square < 150  # 99 degrees of freedom: 99.8 % lie between
    pairs = torch.histc((found[:-1] * 10).floor() * 10 + (found[1:] * 10).floor(), 100, 0, 100)
    assert 60 < ((pairs - 1000) ** 2 / 1000).sum() < 150


def test_the_number_is_read_where_it_lies_so_that_a_graph_draws_anew() -> None:
    number = iteration(0)
    draws = Draws(0, number)
    first = draws.uniform("a", (16,))
    number.add_(1)
    assert not torch.equal(draws.uniform("a", (16,)), first)
    assert torch.equal(Draws(0, iteration(1)).uniform("a", (16,)), draws.uniform("a", (16,)))


def test_compiled_without_a_break_the_bits_are_the_same() -> None:
    def drawn(number: Tensor) -> Tensor:
        return Draws(11, number).uniform("masked", (3, 5, 7))

    compiled = torch.compile(drawn, fullgraph=True, backend="aot_eager")
    for k in (0, 1, 1000):
        assert torch.equal(compiled(iteration(k)), drawn(iteration(k)))
