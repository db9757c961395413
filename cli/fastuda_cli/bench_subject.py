"""What the measurements of training measure: a recipe on a device, and the options that say so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastuda_cli import options
from fastuda_cli.console import console

if TYPE_CHECKING:
    import torch

    from fastuda.recipe import Recipe

BenchRecipe = Annotated[
    str | None, typer.Argument(help="A recipe's name or a TOML file; gta2cs on a GPU, the demo on a CPU.")
]
Iterations = Annotated[
    int | None,
    typer.Option(help="Iterations a repeat; by default 100 on a GPU, fewer on a CPU.", min=1),
]
Out = Annotated[Path | None, typer.Option("--json", help="Also write the rows to this file.", parser=options.path)]
Rates = Annotated[
    Path | None,
    typer.Option(
        "--limits",
        help="Results of `bench probe`: take its rates, and measure and check nothing again.",
        parser=options.path,
    ),
]
Repeats = Annotated[int, typer.Option(help="Repeats; median and spread are reported.", min=1)]


@dataclass(frozen=True)
class Subject:
    """What the measurements of training have in common."""

    recipe: Recipe
    name: str
    settings: list[str]
    """What `--set` changed, for the record: rows of other settings are not compared."""
    device: torch.device
    threads: tuple[int, ...]
    """Of the loaders."""
    folder: Path
    """For made data; goes when the measurement is over."""
    task: Callable[[str], Callable[[int, int], None]]

    def recorded(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows with the settings they were measured with."""
        return [row | {"settings": self.settings} for row in rows]


@contextmanager
def subject(
    recipe: str | None,
    source: Path | None,
    target: Path | None,
    device: str | None,
    set_: list[str] | None,
    num_threads: str | None = None,
    *,
    trains: bool = True,
) -> Iterator[Subject]:
    """The recipe with random weights and a folder that goes when the measurement is over.

    Raises UsageError and FastudaError for what cannot be measured here.
    """
    from fastuda.memory.estimate import require_memory
    from fastuda.recipe.file import load_recipe
    from fastuda.report.display import Display
    from fastuda.runtime.device import choose_device

    threads, chosen = numbers(num_threads, "--threads"), choose_device(device)
    name = recipe or ("gta2cs" if chosen.type == "cuda" else "demo")
    # Weights make no difference to the time, and nothing is to be downloaded for a measurement.
    settings = ["model.weights=random", *options.settings(set_, source, target)]
    resolved = load_recipe(name, settings)
    if trains:
        require_memory(resolved, chosen)
    with TemporaryDirectory(prefix="fastuda-bench-") as folder:
        threads = threads or (resolved.runtime.loader_threads,)
        yield Subject(
            resolved, Path(name).stem, sorted(set_ or []), chosen, threads, Path(folder), Display(console).task
        )


def numbers(text: str | None, option: str) -> tuple[int, ...]:
    """What stands between the commas of an option's text, none for None; UsageError unless each is at least 1."""
    from fastuda.errors import UsageError

    try:
        values = tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise UsageError(f"{option} {text}: whole numbers with commas between them, 1,2,4 say") from None
    if any(value < 1 for value in values):
        raise UsageError(f"{option} {text}: at least 1")
    return values
