"""What a run is made of: recipe, data, code, libraries, ranks. A run that goes on with anything else is another run."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from fastuda.data.datasets import Datasets
from fastuda.data.packing.pack import Packed
from fastuda.recipe import Recipe
from fastuda.runtime.device import versions
from fastuda.version import __version__

_FREE = {
    "description",
    "data.cache",
    "data.max_failed",
    "data.max_unpaired",
    "data.on_error",
    "eval.pseudo_labels",
    "runtime.loader_threads",
    "runtime.watchdog_minutes",
    "train.checkpoint_every",
    "train.checkpoints_kept",
}
"""Fields without a say in the numbers: they may change when a run goes on."""
_LIBRARIES = ("torch", "triton", "nvidia-dali-cuda130")
_SHOWN = 3

Fields = dict[str, Any]
"""A recipe's values by full name, as TOML would say them."""


class DataIdentity(BaseModel):
    """One packed split."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fingerprint: str
    samples: dict[str, list[int]]
    """CRC-32s of the source files (image, label) by sample."""

    @classmethod
    def of(cls, packed: Packed) -> DataIdentity:
        return cls(fingerprint=packed.fingerprint, samples={r.name: r.checksums for r in packed.records})


class Identity(BaseModel):
    """All that decides what a run computes, but for the device."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """The recipe's name."""
    named: Fields | None
    """The recipe of that name, or of that file, before any `--set`; None where nothing tells."""
    asked: Fields
    """The recipe as asked for."""
    init: str | None = None
    """The network that the adaptation was started from; None for a run with a start of its own."""
    recipe: Fields
    """The recipe as it ran: with what the weights file sets and the folders of drawn data."""
    code: str
    """fastuda's version and the beginning of the SHA-256 over its source."""
    libraries: dict[str, str]
    world_size: int = 1
    """Ranks."""
    data: dict[str, DataIdentity]
    """By split: source, target, evaluation, and labelled_target where that is trained on."""

    @classmethod
    def of(
        cls,
        name: str,
        named: Recipe | None,
        asked: Recipe,
        recipe: Recipe,
        data: Datasets,
        init: Path | None = None,
        world_size: int = 1,
    ) -> Identity:
        """Of a run of these parts on this machine; `named` is None where nothing tells it from `asked`."""
        return cls(
            name=name,
            named=None if named is None else fields_of(named),
            asked=fields_of(asked),
            init=None if init is None else str(init.absolute()),
            recipe=fields_of(recipe),
            code=code_version(),
            libraries=_libraries(recipe),
            world_size=world_size,
            data={split: DataIdentity.of(packed) for split, packed in data.splits().items()},
        )

    def asked_differences(
        self, name: str, named: Recipe | None, asked: Recipe, init: Path | None = None, world_size: int = 1
    ) -> list[str]:
        """A line for every way in which a run, as asked for now, would not be this one; its data apart.

        What weights files set may be said as asked for first or as it became; `init` need not be said again.
        """
        lines = []
        if name != self.name:
            lines.append(f"recipe: the run has {self.name}, you ask for {name}")
        elif named is not None and self.named is not None:
            # Relative paths in a recipe file are meant from wherever the command is given.
            changed = differences(_without_paths(self.named), _without_paths(fields_of(named)))
            lines += [f"{line} ({name} has changed since)" for line in changed]
        if init is not None and str(init.absolute()) != self.init:
            lines.append(f"--init: the run has {self.init}, you ask for {init.absolute()}")
        now = fields_of(asked)
        for field in _set_by_weights(asked):
            if now.get(field) == self.asked.get(field):
                now[field] = self.recipe.get(field)
        lines += differences(self.recipe, _with_roots(now, self.asked, self.recipe))
        here = {"code": code_version(), **_libraries(asked)}
        before = {"code": self.code, **self.libraries}
        lines += [f"{what}: the run has {before.get(what)}, here is {now}" for what, now in here.items()
                  if before.get(what) != now]  # fmt: skip
        if self.world_size != world_size:
            ranks = "here is 1" if world_size == 1 else f"here are {world_size}"
            lines.append(
                f"ranks: the run has {self.world_size}, {ranks}; another number shares out other batches, so it would "
                "not be the same run to the last bit"
            )
        return list(dict.fromkeys(lines))

    def data_differences(self, data: Datasets) -> list[str]:
        """A line for every split that is not what the run was begun on, with the first samples that differ."""
        now = {split: DataIdentity.of(packed) for split, packed in data.splits().items()}
        nothing = DataIdentity(fingerprint="", samples={})
        return [
            _data_difference(split, self.data.get(split, nothing), now.get(split, nothing))
            for split in {**self.data, **now}
            if self.data.get(split, nothing).fingerprint != now.get(split, nothing).fingerprint
        ]

    def resumed(self, asked: Recipe, recipe: Recipe) -> Recipe:
        """`asked` with what this run's weights file had set; `recipe` is the run's own."""
        now, model = fields_of(asked), {}
        for field in _set_by_weights(asked):
            if now.get(field) == self.asked.get(field):
                key = field.removeprefix("model.")
                model[key] = getattr(recipe.model, key)
        return asked.model_copy(update={"model": asked.model.model_copy(update=model)})


def _libraries(recipe: Recipe) -> dict[str, str]:
    """Versions of the libraries that decide what a run of the recipe computes."""
    known = versions(*recipe.model.libraries)
    return {library: known[library] for library in (*_LIBRARIES, *recipe.model.libraries)}


def _set_by_weights(recipe: Recipe) -> list[str]:
    return [f"model.{name}" for name in type(recipe.model).set_by_weights]


def fields_of(recipe: Recipe) -> Fields:
    """Every field that may not change, by full name."""
    found: Fields = {}

    def walk(table: Fields, prefix: str) -> None:
        for key, value in table.items():
            if isinstance(value, dict) and key not in ("ids", "subsets"):
                walk(value, f"{prefix}{key}.")
            elif prefix + key not in _FREE:
                found[prefix + key] = value

    walk(recipe.model_dump(mode="json", by_alias=True), "")
    return found


def differences(saved: Fields, asked: Fields) -> list[str]:
    """A line for every field in which two recipes differ."""
    return [
        f"{key}: the run has {saved.get(key)}, you ask for {asked.get(key)}"
        for key in sorted(saved.keys() | asked.keys())
        if saved.get(key) != asked.get(key)
    ]


@cache
def code_version() -> str:
    """fastuda's version and the beginning of the SHA-256 over the source of the library and its kernels."""
    digest = hashlib.sha256()
    for package in ("fastuda", "fastuda_kernels"):
        for name, file in sorted(_sources(resources.files(package), package)):
            digest.update(name.encode())
            digest.update(file.read_bytes())
    return f"{__version__} ({digest.hexdigest()[:12]})"


def _sources(folder: Traversable, prefix: str) -> list[tuple[str, Traversable]]:
    found: list[tuple[str, Traversable]] = []
    for entry in folder.iterdir():
        name = f"{prefix}/{entry.name}"
        if entry.is_dir():
            found += _sources(entry, name)
        elif entry.name.endswith(".py"):
            found.append((name, entry))
    return found


def _without_paths(fields: Fields) -> Fields:
    return {key: value for key, value in fields.items() if not key.endswith((".root", ".listing", ".labelled"))}


def _with_roots(now: Fields, asked: Fields, ran: Fields) -> Fields:
    """The folders of drawn data stand in the recipe that ran, not in the one that was asked for."""
    roots = [key for key in ("source.root", "target.root") if now.get(key) is None and asked.get(key) is None]
    return {**now, **{key: ran.get(key) for key in roots}}


def _data_difference(split: str, before: DataIdentity, now: DataIdentity) -> str:
    gone = [name for name in before.samples if name not in now.samples]
    new = [name for name in now.samples if name not in before.samples]
    changed = [name for name, sums in now.samples.items() if before.samples.get(name, sums) != sums]
    parts = [
        f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{' …' if len(names) > _SHOWN else ''})"
        for what, names in (("gone", gone), ("new", new), ("changed", changed))
        if names
    ]
    what = "; ".join(parts) or "the same samples, packed in another way or another order"
    return f"{split} data: the run has {len(before.samples)} samples, here are {len(now.samples)}: {what}"
