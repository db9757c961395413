"""`fastuda bench`: measurements, each a command; results as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from fastuda_cli import options
from fastuda_cli.console import console, reported, say

if TYPE_CHECKING:
    import torch

    from fastuda.recipe import Recipe

app = typer.Typer(help="Measure fastuda on this machine.", no_args_is_help=True)

BenchRecipe = Annotated[
    str | None, typer.Argument(help="A recipe's name or a TOML file; gta2cs on a GPU, the demo on a CPU.")
]
Iterations = Annotated[int | None, typer.Option(help="Iterations a repeat; more on a GPU by default.", min=1)]
Out = Annotated[Path | None, typer.Option("--json", help="Also write the rows to this file.")]
Repeats = Annotated[int, typer.Option(help="Repeats; median and spread are reported.", min=1)]


@app.command()
def prepare(
    pairs: Annotated[int, typer.Option(help="GTA5-sized pairs to pack.", min=1)] = 60,
    repeats: Repeats = 3,
    workers: Annotated[int | None, typer.Option(help="Threads; all cores by default.", min=1)] = None,
    json_file: Out = None,
) -> None:
    """Pairs a second and peak memory of packing a data set, a packed format a row."""
    with reported():
        from fastuda_bench.prepare import main
        from fastuda_bench.results import write_rows

        rows = main(pairs, repeats, workers)
        if json_file is not None:
            write_rows(json_file, rows)


@app.command()
def formats(
    images: Annotated[int, typer.Option(help="Images to measure on.", min=1)] = 4,
    repeats: Repeats = 5,
    json_file: Out = None,
) -> None:
    """Bytes, decode cost and error of the formats that a pack could have."""
    with reported():
        from fastuda_bench.formats import main
        from fastuda_bench.results import write_rows

        rows = main(images, repeats)
        if json_file is not None:
            write_rows(json_file, rows)


@app.command()
def kernels(
    repeats: Repeats = 5,
    compiled: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="Also torch.compile the formulas; on a GPU by default."),
    ] = None,
    json_file: Out = None,
    chart: Annotated[Path | None, typer.Option(help="Also draw a bar chart to this PNG.")] = None,
    device: options.Device = None,
) -> None:
    """Milliseconds and memory of the four operations against plain PyTorch, and the share of the device's limit."""
    with reported():
        from fastuda.runtime import choose_device
        from fastuda_bench.kernels import main
        from fastuda_bench.results import write_rows

        rows = main(choose_device(device), repeats=repeats, compiled=compiled, chart=chart)
        if json_file is not None:
            write_rows(json_file, rows)


@app.command()
def step(
    recipe: BenchRecipe = None,
    prepared: Annotated[
        bool, typer.Option("--prepared", help="Take the first batches of the recipe's data; noise otherwise.")
    ] = False,
    source: options.Source = None,
    target: options.Target = None,
    repeats: Repeats = 3,
    iterations: Iterations = None,
    json_file: Out = None,
    chart: Annotated[Path | None, typer.Option(help="Also draw ladder and roofline to this PNG.")] = None,
    profile: Annotated[
        Path | None, typer.Option(help="Write a Chrome trace and the ten most expensive operations to this folder.")
    ] = None,
    device: options.Device = None,
    set_: options.Settings = None,
) -> None:
    """Milliseconds of one iteration, from the step as one would type it to fastuda's, each gain by itself."""
    with reported(), _on(recipe, source, target, device, set_) as bench:
        from fastuda_bench.made_data import bench_batches
        from fastuda_bench.results import write_rows
        from fastuda_bench.step import main

        batches = bench_batches(bench.recipe, bench.device, bench.folder, bench.task, prepared=prepared)
        rows = main(
            bench.recipe,
            bench.name,
            batches,
            bench.device,
            repeats=repeats,
            iterations=iterations or (100 if bench.device.type == "cuda" else 3),
            chart=chart,
            profile=profile,
        )
        if json_file is not None:
            write_rows(json_file, rows)


@app.command()
def loader(
    recipe: BenchRecipe = None,
    source: options.Source = None,
    target: options.Target = None,
    threads: Annotated[str | None, typer.Option(help="DALI threads to try: 1,2,4; the recipe's by default.")] = None,
    step_file: Annotated[
        Path | None, typer.Option("--step", help="Results of `bench step`: says how many times its need is met.")
    ] = None,
    repeats: Repeats = 3,
    iterations: Iterations = None,
    json_file: Out = None,
    device: options.Device = None,
    set_: options.Settings = None,
) -> None:
    """Images a second of the data path alone, and how many iterations it can feed."""
    with reported(), _on(recipe, source, target, device, set_, num_threads=threads) as bench:
        from fastuda_bench.compare import fastest_ms
        from fastuda_bench.loader import main
        from fastuda_bench.made_data import bench_data
        from fastuda_bench.results import write_rows

        step_ms = None if step_file is None else fastest_ms(step_file, bench.name)
        data, what = bench_data(bench.recipe, bench.folder, bench.task)
        rows = main(
            bench.recipe,
            bench.name,
            data,
            what,
            bench.device,
            threads=_numbers(threads) or (bench.recipe.runtime.loader_threads,),
            repeats=repeats,
            iterations=iterations or 50,
            step_ms=step_ms,
        )
        if json_file is not None:
            write_rows(json_file, rows)


@app.command()
def train(
    recipe: BenchRecipe = None,
    source: options.Source = None,
    target: options.Target = None,
    repeats: Repeats = 3,
    iterations: Iterations = None,
    price: Annotated[float | None, typer.Option(help="Of a GPU-hour, in any money: what 250k iterations cost.")] = None,
    json_file: Out = None,
    device: options.Device = None,
    set_: options.Settings = None,
) -> None:
    """The real training loop from packed files: pace, share of waiting for data, hours of the paper's run."""
    with reported(), _on(recipe, source, target, device, set_) as bench:
        from fastuda_bench.made_data import bench_data
        from fastuda_bench.results import write_rows
        from fastuda_bench.training import main

        data, what = bench_data(bench.recipe, bench.folder, bench.task)
        rows = main(
            bench.recipe,
            bench.name,
            data,
            what,
            bench.device,
            repeats=repeats,
            iterations=iterations or (100 if bench.device.type == "cuda" else 10),
            price=price,
        )
        if json_file is not None:
            write_rows(json_file, rows)


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="A results file.")],
    after: Annotated[Path, typer.Argument(help="Another one, of the same measurement.")],
) -> None:
    """What changed between two results files, and whether it is more than the spread."""
    with reported():
        from fastuda_bench.compare import compare as main

        main(before, after)


@app.command()
def figures(
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit 1 if a page is not current.")] = False,
    root: Annotated[Path, typer.Option(help="The repository.")] = Path(),
) -> None:
    """Write the tables of README.md and its kin from bench/results/."""
    with reported():
        from fastuda_bench.figures import stale_pages, update_pages

        pages = stale_pages(root) if check else update_pages(root)
        for page in pages:
            say(f"{page}: {'not current' if check else 'rewritten'}")
        if check and pages:
            raise typer.Exit(1)


@dataclass(frozen=True)
class _Bench:
    """What the measurements of training have in common."""

    recipe: Recipe
    name: str
    device: torch.device
    threads: tuple[int, ...]
    """Of the loaders."""
    folder: Path
    """For made data; goes when the measurement is over."""
    task: Callable[[str], Callable[[int, int], None]]


@contextmanager
def _on(
    recipe: str | None,
    source: Path | None,
    target: Path | None,
    device: str | None,
    set_: list[str] | None,
    num_threads: str | None = None,
) -> Iterator[_Bench]:
    from fastuda.display import Display
    from fastuda.memory import require_memory
    from fastuda.recipe_file import load_recipe
    from fastuda.runtime import choose_device

    threads, chosen = _numbers(num_threads), choose_device(device)
    name = recipe or ("gta2cs" if chosen.type == "cuda" else "demo")
    # Weights make no difference to the time, and nothing is to be downloaded for a measurement.
    settings = ["model.weights=random", *options.settings(set_, source, target)]
    resolved = load_recipe(name, settings)
    require_memory(resolved, chosen)
    with TemporaryDirectory(prefix="fastuda-bench-") as folder:
        threads = threads or (resolved.runtime.loader_threads,)
        yield _Bench(resolved, Path(name).stem, chosen, threads, Path(folder), Display(console).task)


def _numbers(text: str | None) -> tuple[int, ...]:
    from fastuda.errors import UsageError

    try:
        numbers = tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise UsageError(f"--threads {text}: whole numbers with commas between them, 1,2,4 say") from None
    if any(number < 1 for number in numbers):
        raise UsageError(f"--threads {text}: at least 1")
    return numbers
