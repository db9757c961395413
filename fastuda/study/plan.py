"""Which runs a study needs: a cell a row and seed, and the warm-ups that cells share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastuda.recipe import Recipe
from fastuda.recipe_file import load_recipe, recipe_name
from fastuda.run_folder import RunFolder
from fastuda.study.table import Row, Table


@dataclass(frozen=True)
class Cell:
    """One run of a study, in a folder of its own."""

    row: str
    """The row's name; a warm-up's that is no row: `warm-up`."""
    seed: int
    name: str
    """The recipe's, for the record."""
    recipe: Recipe
    folder: Path
    init: Path | None = None
    """The network that the adaptation starts from; None when the run makes its own."""
    warmup: Cell | None = None
    """The cell whose source-only model that is, which has to run first."""


@dataclass(frozen=True)
class Plan:
    """A study's runs in the order in which they go, and which of them each row reads."""

    table: Table
    base: str
    seeds: tuple[int, ...]
    settings: tuple[str, ...]
    cells: tuple[Cell, ...]
    of_row: dict[str, tuple[Cell, ...]]
    """By the row's name, a cell a seed; a source-only row reads the warm-up that the others start from."""


def plan_study(
    table: Table, base: str, seeds: Sequence[int], settings: Sequence[str], folder: Path, *, init: Path | None = None
) -> Plan:
    """Lay out rows × seeds below `folder`: one seed's whole table first, so that a stopped study has whole tables.

    Rows whose warm-up is the same share one (protocol row 22); `init` takes the place of all of them.
    Raises UsageError for a row that is no valid recipe over `base`.
    """
    cells: list[Cell] = []
    of_row: dict[str, list[Cell]] = {row.name: [] for row in table.rows}
    kinds: dict[str, str] = {}
    for seed in seeds:
        warmups: dict[str, Cell] = {}
        for row in table.rows:
            name = recipe_name(row.recipe(base))
            recipe = _recipe(base, row, row.variants, settings, seed)
            source_only = recipe.train.iterations == 0
            start, warmup = init, None
            if init is None and recipe.warmup.iterations > 0:
                key = _warmup_key(recipe)
                kind = kinds.setdefault(key, "warm-up" if not kinds else f"warm-up-{len(kinds) + 1}")
                if key not in warmups:
                    own = _recipe(base, row, [*row.variants, "source-only"], settings, seed)
                    warmups[key] = Cell("warm-up", seed, f"{name}+source-only", own, folder / kind / f"seed-{seed}")
                    cells.append(warmups[key])
                warmup = warmups[key]
                start = RunFolder(warmup.folder).model("source_only", "last")
            if warmup is not None and source_only:
                of_row[row.name].append(warmup)
                continue
            cell = Cell(row.name, seed, name, recipe, folder / row.slug / f"seed-{seed}", start, warmup)
            cells.append(cell)
            of_row[row.name].append(cell)
    rows = {name: tuple(found) for name, found in of_row.items()}
    return Plan(table, base, tuple(seeds), tuple(settings), tuple(cells), rows)


def _recipe(base: str, row: Row, variants: Sequence[str], settings: Sequence[str], seed: int) -> Recipe:
    return load_recipe(base, settings, variants=variants, last=[*row.set, f"seed={seed}"])


_NOT_OF_THE_WARMUP = ("description", "seed", "method", "mix", "source_mix", "htcm", "contrast", "edge")


def _warmup_key(recipe: Recipe) -> str:
    """Everything that the source-only stage depends on; of `method` that is the average's decay."""
    fields = recipe.model_dump(mode="json")
    for section in _NOT_OF_THE_WARMUP:
        fields.pop(section)
    for name in ("iterations", "optimizer"):
        fields["train"].pop(name)
    fields["auxiliary"].pop("labels")
    return json.dumps([fields, recipe.method.ema_decay], sort_keys=True)
