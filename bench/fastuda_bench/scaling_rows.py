"""All rows of the model of several GPUs, of one recipe."""

from __future__ import annotations

from pathlib import Path

from fastuda.errors import UsageError
from fastuda.recipe import Recipe
from fastuda_bench.exchange import exchanged
from fastuda_bench.feeding import feeding_rows
from fastuda_bench.results import Row, read_json, sound, stamp
from fastuda_bench.scaling import CARDS, efficiency_rows, exchange_rows, paces


def model_rows(recipe: Recipe, name: str, steps: list[Row]) -> list[Row]:
    """What is exchanged, how efficient that is, and what feeds it, a row each; nothing is run.

    `steps` are rows of `fastuda bench step` on a GPU, whose milliseconds take the place of that card's roofline.
    """
    exchange, found = exchanged(recipe), paces(recipe, name, steps)
    rows = [*exchange_rows(exchange), *efficiency_rows(exchange, found), *feeding_rows(recipe, found)]
    shared = {"recipe": name, "batch_size": recipe.train.batch_size, **stamp(["torch"])}
    return [{**row, **shared} for row in rows]


def step_rows(path: Path, name: str) -> list[Row]:
    """The rows of a results file of `fastuda bench step`; UsageError where none says anything of a card of the model.

    That is where the file holds no such rows of this recipe that count, or those of another GPU.
    """
    content = read_json(path)
    rows = content if isinstance(content, list) else []
    mine = [
        row for row in rows if isinstance(row, dict) and row.get("question") == "step" and row.get("recipe") == name
    ]
    cards = ", ".join(dict.fromkeys(card.name for card in CARDS))
    if not sound(mine):
        raise UsageError(f"--step {path}: holds no sound rows of `fastuda bench step {name}`")
    if not any(card.name in (row["gpu"] or "") for row in mine for card in CARDS):
        raise UsageError(f"--step {path}: measured on {mine[0]['gpu'] or 'a CPU'}; the model knows {cards}")
    return mine
