"""Paired seeds: for one seed, rows of a study see the same batches of both domains, iteration by iteration."""

from __future__ import annotations

from functools import cache as once
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from whole_runs import TINY

from fastuda.data.datasets import Datasets, prepare_all, with_demo_data
from fastuda.data.loading.sampling import DomainName
from fastuda.data.loading.training_loader import TrainingLoader
from fastuda.recipe import Recipe
from fastuda.study.plan import Cell, plan_study
from fastuda.study.table import Row, Table, load_table

SEED, ITERATIONS = 3, 7  # past one epoch of the tiny demo


def adapting(table: Table, cache: Path, seed: int = SEED) -> dict[str, Cell]:
    """The runs of a table that train an adaptation, by the row's name."""
    plan = plan_study(table, "demo", (seed,), [*TINY, f"data.cache={cache}"], Path("runs/x"))
    return {cell.row: cell for cell in plan.cells if cell.recipe.train.iterations > 0}


@once
def packed(cache: Path) -> Datasets:
    placed = Recipe.load("demo", [*TINY, f"data.cache={cache}"])
    return prepare_all(with_demo_data(placed, _silent), _silent)


def _silent(_: str) -> Any:
    return lambda done, total: None


def batches(recipe: Recipe, domain: DomainName, cache: Path, start: int = 0) -> list[dict[str, Any]]:
    """Everything that a row's loader hands over, by field."""
    data = packed(cache)
    pack = data.source if domain == "source" else data.target
    loader = TrainingLoader(pack, domain, recipe, torch.device("cpu"), start_iteration=start)
    return [next(loader)._asdict() for _ in range(start, ITERATIONS)]


def same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    def equal(a: Any, b: Any) -> bool:
        return torch.equal(a, b) if isinstance(a, Tensor) else bool(a == b)

    return all(
        mine.keys() == theirs.keys() and all(equal(value, theirs[name]) for name, value in mine.items())
        for mine, theirs in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("domain", ["source", "target"])
def test_every_row_of_the_summary_sees_the_batches_of_the_control(domain: DomainName, cache: Path) -> None:
    cells = adapting(load_table("summary"), cache)
    assert cells.keys() == {"source only, further", "DACS", "DACS + HTCM", "all", "edge", "oracle"}
    if domain == "source":
        cells.pop("oracle")  # its labelled images are the target's
    control = batches(cells.pop("source only, further").recipe, domain, cache)
    assert len({name for batch in control for name in batch["names"]}) == {"source": 6, "target": 5}[domain]
    for row, cell in cells.items():
        assert same(batches(cell.recipe, domain, cache), control), row


@pytest.mark.parametrize("domain", ["source", "target"])
def test_another_seed_sees_others_and_so_does_a_row_that_changes_what_is_drawn(domain: DomainName, cache: Path) -> None:
    rows = (Row(name="all"), Row(name="tau", set=("method.tau=0.5",)), Row(name="flip", set=("views.flip=0.0",)))
    table = Table(title="t", rows=rows)
    cells = adapting(table, cache)
    everything = batches(cells["all"].recipe, domain, cache)
    assert same(batches(cells["tau"].recipe, domain, cache), everything)
    assert not same(batches(cells["flip"].recipe, domain, cache), everything)
    assert not same(batches(adapting(table, cache, SEED + 1)["all"].recipe, domain, cache), everything)


def test_a_row_that_was_stopped_goes_on_with_the_batches_of_the_others(cache: Path) -> None:
    cells = adapting(load_table("summary"), cache)
    late = batches(cells["edge"].recipe, "source", cache, start=4)
    assert same(late, batches(cells["DACS"].recipe, "source", cache)[4:])
