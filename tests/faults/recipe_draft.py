"""A recipe that is being spoilt, what it became, and the names of the fields that may be."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel

from fastuda.errors import FastudaError
from fastuda.recipe import Recipe
from fastuda.recipe.file import load_recipe
from fastuda.recipe.validation import section_type

_TINY = {
    "demo.num_source": "6", "demo.num_source_val": "1", "demo.num_target": "5", "demo.num_val": "3",
    "demo.size": "[64, 32]", "views.source_size": "[64, 32]", "views.target_size": "[64, 32]",
    "views.crop_size": "[32, 32]", "eval.size": "[64, 32]", "model.width": "0.125", "model.depth": "18",
    "model.kind": '"deeplab-v2"', "warmup.optimizer.kind": '"sgd"', "train.optimizer.kind": '"sgd"',
    "warmup.iterations": "2", "train.iterations": "2", "train.evaluate_every": "2", "train.log_every": "1",
    "eval.pictures": "1", "runtime.loader_threads": "1", "model.weights": '"random"',
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One recipe, what was done to it, and what to give `fastuda train`: the recipe's path, and settings."""

    kind: str
    path: Path
    arguments: list[str]

    @property
    def settings(self) -> list[str]:
        """The values of `--set`."""
        return self.arguments[2::2]

    @property
    def recipe(self) -> Recipe | None:
        """What it means; None when it is refused, as it should be. Whatever else is raised is a fault of the reader."""
        try:
            return load_recipe(self.arguments[0], self.settings)
        except FastudaError:
            return None

    @property
    def valid(self) -> bool:
        """Whether it is a recipe. A valid one may ask for a training of years."""
        return self.recipe is not None

    @property
    def tiny(self) -> bool:
        """Whether it is a recipe that a CPU trains in seconds, as the one was that it was made from."""
        recipe = self.recipe
        if recipe is None or recipe.demo is None:
            return False
        demo, views = recipe.demo, recipe.views
        counts = (demo.num_source, demo.num_source_val, demo.num_target, demo.num_val)
        sides = (*demo.size, *views.source_size, *views.target_size, *views.crop_size, *recipe.eval.size)
        return (
            max(counts) <= 20
            and max(sides) <= 256
            and recipe.warmup.iterations + recipe.train.iterations <= 10
            and recipe.train.batch_size <= 4
            and (recipe.model.depth, len(recipe.model.aspp)) <= (18, 4)
            and recipe.model.width <= 0.25
            and max(recipe.eval.scales) * len(recipe.eval.scales) <= 4
            and len(recipe.classes.build()) <= 32
        )


@dataclass
class Draft:
    """The recipe that is being spoilt: fields by full name with their TOML, as lines or as settings."""

    roll: random.Random
    seed: int
    folder: Path
    fields: dict[str, str] = field(default_factory=lambda: dict(_TINY))
    head: str = 'base = "demo"\n'
    settings: list[str] = field(default_factory=list)
    variants: str = ""

    @property
    def path(self) -> Path:
        """Where the recipe goes."""
        return self.folder / f"{self.seed:05d}.toml"

    def put(self, name: str, value: str) -> None:
        """Say a field, in the file or, as often, as a setting."""
        if self.roll.random() < 0.5 and "\0" not in name + value:
            self.settings.append(f"{name}={value}")
            return
        self.fields = {key: text for key, text in self.fields.items() if not key.startswith(f"{name}.")}
        self.fields[name] = value

    def text(self) -> str:
        """The file as it is now."""
        return self.head + "".join(f"{name} = {value}\n" for name, value in self.fields.items())

    def special(self) -> str:
        """The path of something that is no recipe, no list and no folder of images."""
        path = self.folder / f"{self.seed:05d}-special"
        how = self.roll.choice(["pipe", "socket", "folder", "loop", "device", "nothing", "long", "below", "sparse"])
        if how == "pipe":
            os.mkfifo(path)
        elif how == "socket":
            os.mknod(path, stat.S_IFSOCK | 0o600)
        elif how == "folder":
            path.mkdir()
        elif how == "loop":
            path.symlink_to(path.name)
        elif how == "sparse":
            with path.open("wb") as file:
                file.truncate(1 << 40)
        return {"device": "/dev/zero", "long": "x" * 300, "below": "/dev/null/x"}.get(how, str(path))


def leaves(section: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The full name of every field that is no table, and its type as text."""
    for name, info in section.model_fields.items():
        where = prefix + (info.alias or name)
        try:
            inner = section_type(section, name)
        except TypeError:
            yield where, str(info.annotation)
            continue
        yield from leaves(inner, where + ".")


LEAVES = dict(leaves())

NUMBERS = [name for name, kind in LEAVES.items() if "int" in kind or "float" in kind]

ARRAYS = [name for name, kind in LEAVES.items() if "tuple" in kind]

PATHS = [name for name, kind in LEAVES.items() if "Path" in kind]

SIZES = [name for name in LEAVES if name.endswith("size") and name != "train.batch_size"]

COUNTS = [
    name for name in NUMBERS
    if name.rpartition(".")[2] in ("iterations", "batch_size", "ramp_up", "pictures", "loader_threads", "depth",
    "width",
                                   "aspp", "evaluate_every", "checkpoint_every", "checkpoints_kept", "log_every",
                                   "seed")
    or name.startswith("demo.")
]  # fmt: skip

HUGE = "1" + "0" * 20
"""An integer that no 64 bits hold, as TOML."""
EXTREMES = (
    "0", "1", "-1", "2", "255", "256", "65536", "1_000_000", "2147483647", "2147483648", "9223372036854775807",
    "9223372036854775808", HUGE, f"-{HUGE}", "0.0", "-0.0", "1e-300", "5e-324", "1e308", "0.999999999999999999",
    "1.0", "0x7fffffff", "0b1", "1e18",
)  # fmt: skip

OTHERS = (
    '""', '"x"', "true", "false", "[]", "[[]]", "{}", "{ a = 1 }", "[1, 2, 3]", '["a", 1]', "1979-05-27",
    "1979-05-27T07:32:00Z", "07:32:00", "[0, 0]", "[-1, 5]", '"1"', "0.5", "[nan, nan]", "'\"'", '"""a\nb"""',
    '"\\u001b[2J\\u202e"', '"' + "x" * 5000 + '"', "[" + "1, " * 9999 + "1]",
)  # fmt: skip
