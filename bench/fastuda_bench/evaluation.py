"""How long does scoring a model take? The real evaluation loader and scores, on images of Cityscapes' size."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from rich import box
from rich.table import Table

from fastuda.data.loading.batch import EvaluationBatch
from fastuda.data.loading.evaluation_loader import EvaluationLoader
from fastuda.data.packing.pack import Packed
from fastuda.evaluation.scoring import EVALUATION_BATCH, scored
from fastuda.model.build import build_network
from fastuda.model.passes import Passes
from fastuda.model.place import placed
from fastuda.recipe import Recipe
from fastuda.runtime.fast_path import FastPath
from fastuda.runtime.switches import configure
from fastuda_bench.results import Row, gpu, stamp, summary

_WARM_UP = 8
"""Images scored before the clock runs: cuDNN chooses its convolutions."""


def evaluation_row(recipe: Recipe, name: str, packed: Packed, device: torch.device, *, repeats: int) -> Row:
    """One row: seconds of whole passes over `packed`, labels at their own size, both protocols; random weights.

    `percent_waiting` is the share of a pass in which the host stood in front of the loader; on a GPU the device
    may have had work left meanwhile.
    """
    configure(recipe.runtime, device)
    passes = Passes.of(recipe, device)
    torch.manual_seed(recipe.seed)
    model = placed(build_network(recipe), FastPath.of(recipe.runtime, device), device).eval()
    threads = recipe.runtime.loader_threads
    scored(model, EvaluationLoader(packed, EVALUATION_BATCH, threads, device, limit=_WARM_UP), recipe, passes)
    seconds, waiting = [], []
    for _ in range(repeats):
        loader = _Watched(packed, EVALUATION_BATCH, threads, device)
        began = time.perf_counter()
        scored(model, loader, recipe, passes)  # reads the counts back, so the device has come to its end
        seconds.append(time.perf_counter() - began)
        waiting.append(100 * loader.waited / seconds[-1])
    taken = summary(seconds)
    return {
        "question": "evaluate",
        "recipe": name,
        "images": len(packed),
        "size": recipe.eval.size,
        "pack": packed.format,
        "threads": threads,
        "seconds": taken,
        "images_per_second": summary([len(packed) / one for one in seconds]),
        "percent_waiting": summary(waiting),
        **gpu(device),
        **stamp(["torch", "triton", "nvidia-dali-cuda130", "numpy"]),
    }


def table_of(rows: list[Row]) -> Table:
    """Rows as a table."""
    first = rows[0]
    where = first["gpu"] or f"{first['cores']} cores of {first['cpu']}"
    title = f"evaluation of {first['recipe']} at {first['size'][0]}×{first['size'][1]}, labels 2048×1024, {where}"
    table = Table(title=title, box=box.SIMPLE)
    for column in ("images", "seconds", "spread", "images/s", "waiting for data"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            str(row["images"]),
            f"{row['seconds']['median']:.2f}",
            f"{row['seconds']['spread']:.2f}" if row["seconds"]["repeats"] > 1 else "–",
            f"{row['images_per_second']['median']:.1f}",
            f"{row['percent_waiting']['median']:.1f} %",
        )
    return table


class _Watched(EvaluationLoader):
    """An evaluation loader that counts the seconds waited for its batches."""

    waited = 0.0

    def __iter__(self) -> Iterator[EvaluationBatch]:
        batches = super().__iter__()
        while True:
            began = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                self.waited += time.perf_counter() - began
            yield batch
