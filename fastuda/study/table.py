"""What a study compares: rows over one base recipe, with the paper's numbers beside them."""

from __future__ import annotations

import re
from importlib import resources
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from fastuda.errors import UsageError, nearest
from fastuda.files.paths import user_path
from fastuda.files.toml_text import parse_toml, read_toml
from fastuda.printable import brief, on_one_line, shortened
from fastuda.recipe import Section
from fastuda.recipe.file import variant_text

_MOST_LINES = 20
_TABLES = resources.files("fastuda.study") / "tables"
CONTROL, SOURCE_ONLY, ORACLE = "control", "source-only", "oracle"
"""The variants of a control, of a network without adaptation, and of the ceiling."""


class Row(Section):
    """One line of a table: a recipe that differs from the base in a few lines."""

    name: str = Field(min_length=1)
    """As the table prints it."""
    variant: str | None = None
    """The variant over the base, several joined by `+`; without it the base itself."""
    set: tuple[str, ...] = ()
    """Further settings, as `--set` takes them; they win over the user's."""
    needs: Literal["target labels"] | None = None
    """What the row is left out without: labels of the target's training images, which the recipe may not have."""
    paper: float | None = None
    """The mIoU that the paper prints, percent."""
    paper_iou: dict[str, float] = Field(default_factory=dict)
    """The paper's IoU by class name, percent, where it prints them."""
    paper_subsets: dict[str, float] = Field(default_factory=dict)
    """The paper's mIoU by subset of the classes (`eval.subsets`), percent, where it prints them."""

    @property
    def variants(self) -> list[str]:
        """The variants' names, in order."""
        return [] if self.variant is None else self.variant.split("+")

    @property
    def is_control(self) -> bool:
        """Whether the row trains on the source alone for the adaptation's iterations."""
        return self.variants == [CONTROL]

    def recipe(self, base: str) -> str:
        """The recipe's name over `base`, as `fastuda train` takes it."""
        return "+".join((base, *self.variants))

    @property
    def folder(self) -> str:
        """Where the row's runs go; the same for equal rows of several tables, which then share them."""
        return re.sub(r"[^\w.=+]+", "-", "-".join((self.variant or "base", *self.set)))


class Table(Section):
    """A table of the paper, or of your own."""

    title: str
    """One line: what is compared."""
    pair: str = ""
    """The pair of data sets that the paper's numbers are of."""
    base: str = "gta2cs"
    """The recipe that the rows change when nobody says another."""
    control: bool = True
    """Whether a row that trains on the source alone is added where no row does (variant `control`): from the
    base's warm-up, for the base's iterations. A row that sets another `train.iterations`, or changes what the warm-up
    depends on, is said to be unlike it."""
    rows: tuple[Row, ...] = Field(min_length=1)
    """In the order in which they are run and printed."""

    @property
    def control_row(self) -> Row | None:
        """The row that gains are taken over: the control, of several the first that sets nothing further."""
        return next(iter(sorted((row for row in self.rows if row.is_control), key=lambda row: bool(row.set))), None)

    def with_control(self) -> Table:
        """The table with a control: its own, or one after a first row `source only`, otherwise at the end.

        A first row stays the first, which `gain` is over.
        """
        if self.control_row is not None:
            return self
        taken = {row.name for row in self.rows}
        names = (f"source only, further{' (control)' * i}" for i in range(len(taken) + 1))
        added = Row(name=next(name for name in names if name not in taken), variant=CONTROL)
        place = 1 if self.rows[0].variants == [SOURCE_ONLY] else len(self.rows)
        return self.model_copy(update={"rows": (*self.rows[:place], added, *self.rows[place:])})

    @model_validator(mode="after")
    def _check(self) -> Table:
        for name in {row.name for row in self.rows}:
            if sum(row.name == name for row in self.rows) > 1:
                raise ValueError(f"two rows are called {name!r}")
        for row in self.rows:
            for variant in row.variants:
                variant_text(variant)
        return self


def table_names() -> list[str]:
    """Names of the tables that come with fastuda, sorted."""
    return sorted(entry.name.removesuffix(".toml") for entry in _TABLES.iterdir() if entry.name.endswith(".toml"))


def load_table(name_or_path: str) -> Table:
    """A table by name, or from a TOML file of your own. Raises UsageError that names the file and the field."""
    path = user_path(name_or_path)
    if path.suffix == ".toml":
        content = read_toml(path, "table")
    elif name_or_path in table_names():
        content = parse_toml((_TABLES / f"{name_or_path}.toml").read_text("utf-8"), name_or_path)
    else:
        near = nearest(name_or_path, table_names())
        raise UsageError(
            f"no table is called {brief(name_or_path)}{near}; there are {', '.join(table_names())}, or give a TOML file"
        )
    try:
        return Table.model_validate(content)
    except ValidationError as error:
        lines = [
            shortened(
                on_one_line(f"{'.'.join(map(str, e['loc'])) or 'table'}: {e['msg'].removeprefix('Value error, ')}")
            )
            for e in error.errors(include_context=False)[:_MOST_LINES]
        ]
        raise UsageError(f"{on_one_line(name_or_path)}:\n  " + "\n  ".join(lines)) from error
