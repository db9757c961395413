"""What an iteration of a recipe needs: parameters, arithmetic, memory, and what fits cards of a few sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from pydantic import ValidationError
from rich import box
from rich.table import Table
from torch.nn.attention import SDPBackend, sdpa_kernel

from fastuda.memory.estimate import estimate_bytes, needed_bytes
from fastuda.model.build import build_network
from fastuda.recipe import Recipe
from fastuda_bench.results import Row, stamp
from fastuda_bench.work import iteration_work

CARDS_GB = (10, 16, 24)
"""Sizes of GPUs in gigabytes as they are sold, of 2³⁰ bytes."""
_GPU = torch.device("cuda", 0)
_SHRINK, _STEPS = 0.85, 8


def needs(recipe: Recipe, name: str) -> Row:
    """A row: parameters, floating-point operations and bytes of one adaptation iteration, in bf16, nothing run.

    `fits` says of each card which settings first leave enough memory: none, a batch of one, then smaller crops beside
    it; None where even the last does not. Bytes are `memory.estimate_bytes` of a GPU, and `gib` what `fastuda train`
    asks for beside a CUDA context; the compiled iteration needs less.
    """
    with _supposed_bf16():
        changes = list(_smaller(recipe))
        sizes: list[int] = []
        fits: dict[str, list[str] | None] = {}
        for card in CARDS_GB:
            found = None
            for place, (settings, smaller) in enumerate(changes):
                if place == len(sizes):
                    sizes.append(estimate_bytes(smaller, _GPU))
                if needed_bytes(sizes[place], _GPU) <= card * 2**30:
                    found = settings
                    break
            fits[str(card)] = found
        with sdpa_kernel(SDPBackend.MATH):  # whose products torch counts
            flops = iteration_work(recipe, _GPU).flops
        with torch.device("meta"):
            network = build_network(recipe)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    return {
        "question": "needs",
        "recipe": name,
        "network": recipe.model.kind,
        "parts": recipe.parts,
        "batch_size": recipe.train.batch_size,
        "crop_size": list(recipe.views.crop_size),
        "parameters": parameters,
        "trained": trained,
        "flops": flops,
        "bytes": sizes[0],
        "gib": round(needed_bytes(sizes[0], _GPU) / 2**30, 2),
        "fits": fits,
        **stamp(["torch", "transformers"]),
    }


def table_of(rows: Sequence[Row]) -> Table:
    """A line a recipe."""
    table = Table(title="one iteration in bf16 on a GPU: estimated, not measured", box=box.SIMPLE)
    table.add_column("recipe", no_wrap=True)
    for head in COLUMNS:
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(row["recipe"], *cells(row))
    return table


COLUMNS = ("batch, crop", "M parameters", "TFLOPs", "GiB", *(f"fits {card} GB" for card in CARDS_GB))


def cells(row: Row) -> list[str]:
    """A row's figures, a column of `COLUMNS` each."""
    parameters, trained = (f"{row[name] / 1e6:.1f}" for name in ("parameters", "trained"))
    if trained != parameters:
        parameters = f"{trained} of {parameters}"
    said = [_said(row["fits"][str(card)]) for card in CARDS_GB]
    width, height = row["crop_size"]
    return [
        *(f"{row['batch_size']}, {width}×{height}", parameters),
        *(f"{row['flops'] / 1e12:.1f}", f"{row['gib']:.1f}", *said),
    ]


def _said(settings: list[str] | None) -> str:
    if settings is None:
        return "no"
    named = {"train.batch_size": "batch", "views.crop_size": "crop"}
    parts = [one.split("=") for one in settings]
    return ", ".join(f"{named[field]} {value}" for field, value in parts) or "as it is"


def _smaller(recipe: Recipe) -> Iterator[tuple[list[str], Recipe]]:
    """The recipe, and what is smaller and smaller, each with its settings."""
    yield [], recipe
    one = _changed(recipe, {"train": {"batch_size": 1}})
    if one is None:
        return
    settings = ["train.batch_size=1"]
    yield settings, one
    side = min(recipe.views.crop_size)
    for _ in range(_STEPS):
        side, crop = _next_side(one, int(side * _SHRINK))
        if crop is None:
            return
        yield [*settings, f"views.crop_size={side}²"], crop


def _next_side(recipe: Recipe, most: int) -> tuple[int, Recipe | None]:
    """The largest square crop of at most that side that the network takes, in whole eights or patches."""
    for side in range(most, 63, -1):
        if side % 8 and side % 14:
            continue
        found = _changed(recipe, {"views": {"crop_size": (side, side)}})
        if found is not None:
            return side, found
    return most, None


def _changed(recipe: Recipe, changes: dict[str, dict[str, Any]]) -> Recipe | None:
    content = recipe.model_dump(by_alias=True)
    for table, fields in changes.items():
        content[table] |= fields
    try:
        return Recipe.model_validate(content)
    except ValidationError:
        return None


@contextmanager
def _supposed_bf16() -> Iterator[None]:
    """While entered, a GPU that need not be there has bf16."""
    with patch.object(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True):
        yield
