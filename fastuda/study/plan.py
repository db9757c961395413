"""Which runs a study needs: a cell a row and seed, and the warm-ups that cells share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fastuda.errors import FastudaError, UsageError
from fastuda.recipe import Recipe
from fastuda.recipe.file import Layer, load_recipe, recipe_name
from fastuda.recipe.warmup import warmup_fields
from fastuda.runs.folder import RunFolder
from fastuda.study.table import Row, Table

_LOOK = "eval.pseudo_labels=true"


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
class Reading:
    """Where a row's score for one seed comes from: a run, and which of its stages."""

    cell: Cell
    stage: Literal["source_only", "adapted"]


@dataclass(frozen=True)
class Plan:
    """A study's runs in the order in which they go, and which of them each row reads."""

    table: Table
    base: str
    seeds: tuple[int, ...]
    settings: tuple[str, ...]
    cells: tuple[Cell, ...]
    of_row: dict[str, tuple[Reading, ...]]
    """By the row's name, one a seed; a source-only row reads the warm-up that the others start from."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Why rows of the table are not run, by name: they need what the recipe does not have."""

    @property
    def unlike_control(self) -> dict[str, str]:
        """In what rows differ from the control beyond what is trained on, by name: their gains are of that too.

        A row in which nothing is trained is held against it as it is.
        """
        control = self.table.control_row
        if control is None or not self.seeds:
            return {}
        whys = {row: _unlike(found[0], self.of_row[control.name][0]) for row, found in self.of_row.items()}
        return {row: why for row, why in whys.items() if why}


def plan_study(
    table: Table,
    base: str,
    seeds: Sequence[int],
    settings: Sequence[str],
    folder: Path,
    *,
    init: Path | None = None,
    control: bool = True,
) -> Plan:
    """Lay out rows × seeds below `folder`: one seed's whole table first, so that a stopped study has whole tables.

    What is drawn follows from the seed alone, so rows with one seed see the same batches, unless they change what is
    drawn: batch, views or jitter. With `control`, and unless the table says otherwise, one of its rows is a control.

    Rows whose warm-up is the same share one (protocol row 22); `init` takes the place of all of them, and its runs
    lie in a folder of their own, named by the file's SHA-256. Raises UsageError for a row that is no valid recipe
    over `base`, FastudaError when `init` cannot be read.
    """
    if init is not None:
        folder = folder / f"init-{_digest(init)}"
    table, left_out = _with_what_there_is(table, base, settings)
    if control and table.control:
        table = table.with_control()
    cells: list[Cell] = []
    of_row: dict[str, list[Reading]] = {row.name: [] for row in table.rows}
    for seed in seeds:
        warmups: dict[str, Cell] = {}
        for row in table.rows:
            name = recipe_name(row.recipe(base))
            recipe = _recipe(base, row, settings, seed)
            start, warmup = init, None
            if init is None and recipe.warmup.iterations > 0:
                warmup = _warmup(base, row, settings, seed, folder)
                shared = warmups.setdefault(_stage_key(warmup.recipe), warmup)
                if shared is warmup:
                    cells.append(warmup)
                warmup, start = shared, RunFolder(shared.folder).model("source_only", "last")
            if warmup is not None and not recipe.has_adapted_stage:
                of_row[row.name].append(Reading(warmup, "source_only"))
                continue
            cell = Cell(row.name, seed, name, recipe, folder / row.folder / f"seed-{seed}", start, warmup)
            cells.append(cell)
            of_row[row.name].append(Reading(cell, "adapted" if recipe.has_adapted_stage else "source_only"))
    rows = {name: tuple(found) for name, found in of_row.items()}
    return Plan(table, base, tuple(seeds), tuple(settings), tuple(cells), rows, left_out)


def _with_what_there_is(table: Table, base: str, settings: Sequence[str]) -> tuple[Table, dict[str, str]]:
    """The table without the rows that need what the base recipe does not have, and why each is left out."""
    left_out: dict[str, str] = {}
    for row in table.rows:
        if row.needs is not None:
            of_target = tuple(setting for setting in row.set if setting.startswith("target"))
            lacking = load_recipe(base, settings, layers=[((), of_target)]).target.lacks_training_labels
            left_out |= {row.name: f"it needs {row.needs}: {lacking}"} if lacking else {}
    kept = tuple(row for row in table.rows if row.name not in left_out)
    if not kept:
        raise UsageError(f"no row is left over {base}: {'; '.join(f'{row}: {why}' for row, why in left_out.items())}")
    return table.model_copy(update={"rows": kept}), left_out


def _unlike(reading: Reading, control: Reading) -> str:
    """In what a row's run differs from the control's beyond what is trained on; empty in nothing."""
    own, other = reading.cell.recipe, control.cell.recipe
    is_warmup = reading.stage == "source_only" and reading.cell.init is None
    start = reading.cell if is_warmup else reading.cell.warmup
    found = ["it starts from another network"] if start != control.cell.warmup else []
    if own.train.iterations > 0:
        for name in ("iterations", "batch_size"):
            mine, theirs = getattr(own.train, name), getattr(other.train, name)
            found += [f"train.{name} = {mine}, not {theirs}"] if mine != theirs else []
    return ", ".join(found)


def plan_repeats(recipe: Recipe, name: str, count: int, folder: Path, *, init: Path | None = None) -> Plan:
    """`count` whole runs of one recipe with seeds from its own on, warm-up and all: what a result's spread is."""
    seeds = tuple(range(recipe.seed, recipe.seed + count))
    cells = tuple(
        Cell(name, seed, name, recipe.model_copy(update={"seed": seed}), folder / f"seed-{seed}", init)
        for seed in seeds
    )
    stages: dict[str, Literal["source_only", "adapted"]] = {}
    if init is not None or recipe.warmup.iterations > 0:
        stages["source only"] = "source_only"
    if recipe.has_adapted_stage:
        stages["adapted"] = "adapted"
    table = Table(title=recipe.description, rows=tuple(Row(name=stage) for stage in stages))
    of_row = {row: tuple(Reading(cell, stage) for cell in cells) for row, stage in stages.items()}
    return Plan(table, name, seeds, (), cells, of_row)


def _warmup(base: str, row: Row, settings: Sequence[str], seed: int, folder: Path) -> Cell:
    """The source-only run that a row starts from: the base's, unless the row changes something it depends on."""
    plain = Row(name="warm-up")
    own, shared = (_recipe(base, one, settings, seed, source_only=True) for one in (row, plain))
    differs = _stage_key(own) != _stage_key(shared)
    chosen, place = (row, folder / f"warm-up-{row.folder}") if differs else (plain, folder / "warm-up")
    name = f"{recipe_name(chosen.recipe(base))}+source-only"
    return Cell("warm-up", seed, name, own if differs else shared, place / f"seed-{seed}")


def _recipe(base: str, row: Row, settings: Sequence[str], seed: int, *, source_only: bool = False) -> Recipe:
    """The row's recipe, looking at its pseudo-labels unless a setting is against it; or its source-only stage alone."""
    layers: list[Layer] = [(row.variants, row.set), ((), (f"seed={seed}",))]
    try:
        recipe = load_recipe(base, settings, layers=layers)
        if not source_only:
            looking = load_recipe(base, [_LOOK, *settings], layers=layers)
            return looking if looking.makes_pseudo_labels else recipe
        kept = [name for name, term in recipe.terms.items() if term.of_warmup != ()]
        parts = f"parts={json.dumps(kept)}"
        alone = ((), (parts, "train.iterations=0", "eval.batch_norm=running")) if kept else (("source-only",), ())
        return load_recipe(base, settings, layers=[*layers, alone])
    except UsageError as error:
        raise UsageError(f"row {row.name!r} over {base}: {error}") from error


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()[:8]
    except OSError as error:
        raise FastudaError(f"--init {file}: cannot be read ({error.strerror})") from error


def _stage_key(recipe: Recipe) -> str:
    """Everything that the source-only stage depends on."""
    return json.dumps(warmup_fields(recipe), sort_keys=True)
