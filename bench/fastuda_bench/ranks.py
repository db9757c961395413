"""What do several ranks gain on this machine, and what holds them back? One recipe's step, its ways taken in turn.

A repeat goes once through all ways: the whole batch in one process on all cores or one GPU, a rank's share there, all
ranks without an exchange, and all ranks with each kind of exchange. What ranks lose to one another's memory and cores
lies between a share alone and together; what the exchange costs, between without and with it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rich import box
from rich.table import Table
from torch._C._distributed_c10d import TCPStore
from torch.multiprocessing.spawn import spawn

from fastuda.data.loading.made import made_batches
from fastuda.distributed.ranks import ALONE, Ranks, joined
from fastuda.errors import FastudaError
from fastuda.method.optimizer import parameters_of
from fastuda.method.state import TrainingState
from fastuda.model.passes import Passes
from fastuda.recipe import Recipe
from fastuda.recipe.file import load_recipe
from fastuda.runtime.fast_path import FastPath
from fastuda.runtime.switches import configure
from fastuda.training.iteration import Iteration
from fastuda_bench.all_reduce import all_reduce_rows
from fastuda_bench.begun import begun
from fastuda_bench.results import Row, failure, gpu, stamp, summary, write_json
from fastuda_bench.scaling import iteration_seconds

_WARM_UP = 2


@dataclass(frozen=True)
class Way:
    """One way to train a global batch, or a part of it."""

    name: str
    together: bool = True
    """On all ranks at once; otherwise on the first one, while the others wait."""
    whole: bool = False
    """The global batch in one process, with all cores."""
    exchanges: bool = True
    settings: tuple[str, ...] = ()


WAYS = (
    Way("one process, the whole batch", together=False, whole=True, exchanges=False),
    Way("one process, a rank's share", together=False, exchanges=False),
    Way("all ranks, nothing exchanged", exchanges=False),
    Way("all ranks"),
    Way("all ranks, overlap", settings=("distributed.overlap=true",)),
    Way("all ranks, bf16 gradients", settings=("distributed.gradients=bf16",)),
    Way("all ranks, synchronised BatchNorm", settings=("distributed.sync_batch_norm=true",)),
)


def rank_rows(
    recipe: str,
    settings: list[str],
    device: torch.device,
    folder: Path,
    *,
    num_ranks: int,
    repeats: int,
    iterations: int,
) -> list[Row]:
    """A row a way: milliseconds an iteration over windows of `iterations`, and the bytes that each exchanges.

    Raises FastudaError where the ranks cannot work together.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    order = {"recipe": recipe, "settings": settings, "repeats": repeats, "iterations": iterations}
    arguments = (num_ranks, store.port, device.type, str(folder), order)
    try:
        spawn(_rank, arguments, nprocs=num_ranks)  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever a process died of
        raise FastudaError(f"{num_ranks} ranks cannot work together here: {failure(error)}") from error
    rows: list[Row] = json.loads((folder / "rows.json").read_text())
    if device.type == "cpu":
        (*_, line) = all_reduce_rows(num_ranks, folder / "all-reduce", repeats=5)
        apart = next(row for row in rows if row["way"] == WAYS[2].name)["ms"]["median"] / 1000
        for row in rows:
            if row["gradient_bytes"] and row["way"] != WAYS[-1].name:
                row["model_ms"] = round(1000 * _modelled(apart, row["gradient_bytes"], num_ranks, line), 1)
    return rows


def _modelled(apart: float, num_bytes: int, ranks: int, line: Row) -> float:
    """Seconds of an iteration by the model of scaling, with the link's line as all-reduces here have it."""
    alpha, beta = line["alpha_us"] / 1e6, 1e-9 / line["gb_per_second"]
    return iteration_seconds(apart, num_bytes, ranks, alpha, beta)


def _rank(rank: int, size: int, port: int, kind: str, folder: str, order: dict[str, Any]) -> None:
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    device = torch.device(kind, rank) if kind == "cuda" else torch.device("cpu")
    if kind == "cuda":
        torch.cuda.set_device(device)
    with joined(device) as ranks:
        seconds, ways = _measured(ranks, device, order)
        if ranks.first:
            write_json(Path(folder) / "rows.json", _rows(ranks, device, order, seconds, ways))


def _measured(
    ranks: Ranks, device: torch.device, order: dict[str, Any]
) -> tuple[dict[str, list[float]], dict[str, dict[str, Any]]]:
    """Seconds an iteration by way, a value a repeat, and what each way is."""
    runs, about = {}, {}
    for way in WAYS:
        run, about[way.name] = _run(way, ranks, device, order)
        with _cores(way, ranks):
            for _ in range(_WARM_UP if way.together or ranks.first else 0):
                run()
        runs[way] = run
    seconds: dict[str, list[float]] = {way.name: [] for way in WAYS}
    for _ in range(order["repeats"]):
        for way, run in runs.items():
            with _cores(way, ranks):
                dist.barrier()
                began = time.perf_counter()
                if way.together or ranks.first:
                    for _ in range(order["iterations"]):
                        run()
                    if device.type == "cuda":
                        torch.cuda.synchronize(device)
                dist.barrier()
                seconds[way.name].append((time.perf_counter() - began) / order["iterations"])
    return seconds, about


def _run(
    way: Way, ranks: Ranks, device: torch.device, order: dict[str, Any]
) -> tuple[Callable[[], object], dict[str, Any]]:
    """An iteration of a way on this rank, and what there is to be said of it."""
    recipe = load_recipe(order["recipe"], [*order["settings"], *way.settings])
    if way.whole:
        recipe = recipe.model_copy(
            update={"train": recipe.train.model_copy(update={"batch_size": ranks.size * recipe.train.batch_size})}
        )
    configure(recipe.runtime, device)
    fast, passes = FastPath.of(recipe.runtime, device), Passes.of(recipe, device)
    if not way.together and not ranks.first:
        return lambda: None, {}
    state = begun(recipe, fast, device, ranks=ranks if way.exchanges else ALONE)
    iteration, batches = Iteration(state, recipe, passes, fast), made_batches(recipe, device, seed=ranks.rank)
    about = {"batch_size": recipe.train.batch_size, "bytes": _bytes(state, recipe) if way.exchanges else 0}
    return lambda: iteration(*batches), about


def _bytes(state: TrainingState, recipe: Recipe) -> int:
    """Of the gradients that an iteration averages."""
    shared = recipe.distributed
    numbers = sum(one.numel() for one in parameters_of(state.optimizer))
    return numbers * (2 if shared.gradients == "bf16" else 4) * (2 if shared.overlap else 1)


@contextmanager
def _cores(way: Way, ranks: Ranks) -> Iterator[None]:
    """A rank has its share of the cores, and the whole batch all of them."""
    every = len(os.sched_getaffinity(0))
    torch.set_num_threads(every if way.whole else max(1, every // ranks.size))
    yield


def _rows(
    ranks: Ranks, device: torch.device, order: dict[str, Any], seconds: dict[str, list[float]], ways: dict[str, Any]
) -> list[Row]:
    recipe: Recipe = load_recipe(order["recipe"], order["settings"])
    every, base = len(os.sched_getaffinity(0)), summary([1000 * one for one in seconds[WAYS[0].name]])["median"]
    rows = []
    for way in WAYS:
        ms = summary([1000 * one for one in seconds[way.name]])
        images = ways[way.name]["batch_size"] * (ranks.size if way.together else 1)
        rows.append(
            {
                "question": "ranks",
                "way": way.name,
                "recipe": order["recipe"],
                "settings": order["settings"],
                "ranks": ranks.size if way.together else 1,
                "batch_size": ways[way.name]["batch_size"],
                "images": images,
                "threads": every if way.whole else max(1, every // ranks.size),
                "gradient_bytes": ways[way.name]["bytes"],
                "iterations": order["iterations"],
                "precision": Passes.of(recipe, device).precision,
                "ms": ms,
                "speed": round(base / ms["median"] * images / (ranks.size * recipe.train.batch_size), 4),
                **gpu(device),
                **stamp(["torch", "triton"]),
            }
        )
    return rows


def cells(row: Row) -> tuple[str, ...]:
    """A row of the table."""
    exchanged = f"{row['gradient_bytes'] / 1e6:.1f} MB" if row["gradient_bytes"] else "–"
    threads = f"{row['ranks']} × {row['threads']}"
    return (
        row["way"], threads, str(row["batch_size"]), exchanged, f"{row['ms']['median']:.1f}",
        f"{row['ms']['spread']:.1f}", f"{row['model_ms']:.0f}" if "model_ms" in row else "–", f"{row['speed']:.2f}×",
    )  # fmt: skip


COLUMNS = (
    "way", "processes × threads", "batch", "gradients", "ms an iteration", "spread", "by the model", "images a second",
)  # fmt: skip


def table_of(rows: list[Row]) -> Table:
    """Rows as a table."""
    first = rows[0]
    where = first["gpu"] or f"{first['cores']} cores of {first['cpu']}"
    table = Table(title=f"{first['recipe']} on several ranks, {first['precision']}, {where}", box=box.SIMPLE)
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "way" else "right")
    for row in rows:
        table.add_row(*cells(row))
    return table
