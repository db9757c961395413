"""Launches and bytes are counted from traced graphs: they move as the rungs and the batch say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from typer.testing import CliRunner

from fastuda.recipe.file import load_recipe
from fastuda_bench import launches
from fastuda_bench.eager_tally import EagerTally, _launches_of_lists
from fastuda_bench.tally import Tally
from fastuda_cli.main import app

SIZES = [
    "model.depth=18",
    "model.width=0.125",
    "model.weights=random",
    "model.auxiliary=false",
    "contrast.pixel=false",
    "contrast.prototype=false",
    "views.source_size=[512, 256]",
    "views.target_size=[512, 256]",
    "views.crop_size=[256, 256]",
]
_SMALL = """
import gc, json, sys, warnings
gc.disable()
warnings.simplefilter("ignore")
from dataclasses import asdict
from fastuda.method.step import warmup_step
from fastuda.model.deeplab import resnet
from fastuda.recipe import Recipe
from fastuda_bench import traced_step
from fastuda_bench.ladder import RUNGS, recipe_at
resnet.BLOCKS[18] = (1, 1, 1, 1)
traced_step.adaptation_step = lambda state, source, _, *rest: warmup_step(state, source, *rest)
recipe = Recipe.model_validate_json(sys.stdin.read())
for name in sys.argv[1:]:
    rung = next(one for one in RUNGS if one.name == name)
    print(json.dumps(asdict(traced_step.traced_step(recipe_at(recipe, rung)))))
"""


def _traced(rungs: Sequence[str], *settings: str) -> list[Tally]:
    """The counts of a pass, its gradient and update: what a whole iteration has several times, and sooner."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    given = load_recipe("gta2cs", [*SIZES, *settings]).model_dump_json()
    asked = [sys.executable, "-c", _SMALL, *rungs]
    done = subprocess.run(asked, input=given, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return [Tally(**json.loads(line)) for line in done.stdout.splitlines()]


@cache
def _counts() -> dict[str, Tally]:
    """By rung, and of the last with twice the batch."""
    with ThreadPoolExecutor() as threads:
        rungs = threads.submit(_traced, ("graph", "flat-update"))
        others = threads.submit(_traced, ("fused-bn",)), threads.submit(_traced, ("fused-bn",), "train.batch_size=4")
        found = [*rungs.result(), *(one for other in others for one in other.result())]
    return dict(zip((*launches.RUNG_NAMES, "doubled"), found, strict=True))


def test_flat_updates_save_casts_and_the_operations_of_the_update() -> None:
    graph, flat = _counts()["graph"], _counts()["flat-update"]
    assert flat.products == graph.products
    assert flat.triton == graph.triton
    # 13 convolutions of the backbone: their weights are cast in the pass, and their gradients behind it.
    assert graph.fused - flat.fused == pytest.approx(2 * 13, abs=8)
    assert flat.others < graph.others


def test_fused_batch_norm_moves_fewer_bytes_by_kernels_of_our_own() -> None:
    flat, fused = _counts()["flat-update"], _counts()["fused-bn"]
    assert fused.bytes < 0.95 * flat.bytes
    assert fused.products == flat.products
    # 13 layers: statistics, their end and the result in the pass, as many for the gradient.
    assert fused.triton - flat.triton == 13 * 3 * 2
    assert fused.fused < flat.fused - 13 * 3


def test_twice_the_batch_is_twice_the_bytes_and_no_launch_more() -> None:
    once, twice = _counts()["fused-bn"], _counts()["doubled"]
    assert 1.7 * once.bytes < twice.bytes < 2.05 * once.bytes
    assert abs(twice.launches - once.launches) <= 0.02 * once.launches


def test_operations_outside_compiled_code_count_one_by_one() -> None:
    with FakeTensorMode(), EagerTally(lambda *_: Tally(triton=2)) as counted:
        x = torch.empty(4, 3, 8, 8)
        weight = torch.empty(5, 3, 3, 3, requires_grad=True)
        y = torch.nn.functional.conv2d(x, weight)
        assert counted.total == Tally(products=1, bytes=4 * (x.numel() + weight.numel() + y.numel()))
        y.view(-1).detach()
        assert counted.total.launches == 1
        torch.cat([y, y])
        y.sum().backward()
        with counted.paused():
            torch.cat([y, y])
    assert (counted.total.products, counted.total.others) == (2, 3), counted.names


def test_operations_over_lists_are_cut_as_torch_cuts_them() -> None:
    small, large = torch.empty(10, device="meta"), torch.empty(320 * 65536 + 1, device="meta")
    assert _launches_of_lists(([small] * 110,)) == 1
    assert _launches_of_lists(([small] * 111,)) == 2
    assert _launches_of_lists(([small] * 100, [small] * 100)) == 2
    assert _launches_of_lists(([small] * 100, [small] * 100, [small] * 100, 0.9)) == 3
    assert _launches_of_lists(([large],)) == 2


def test_the_command_prints_and_writes_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    asked = []

    def counted(recipe: Any, rung: str) -> dict[str, int]:
        asked.append((recipe.train.batch_size, rung))
        return {"launches": 1234, "products": 1, "fused": 2, "triton": 3, "others": 4, "bytes": 5_600_000_000}

    monkeypatch.setattr(launches, "_in_a_process", counted)
    out = tmp_path / "launches.json"
    words = ["bench", "launches", "gta2cs", "--json", str(out), "--set", "train.batch_size=3"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert asked == [(3, name) for name in launches.RUNG_NAMES]
    rows = json.loads(out.read_text())
    assert [row["rung"] for row in rows] == list(launches.RUNG_NAMES)
    assert {"question", "recipe", "batch_size", "settings", "versions", "commit", "date"} <= rows[0].keys()
    assert rows[0]["settings"] == ["train.batch_size=3"]
    assert "1,234" in result.output
    refused = CliRunner().invoke(app, ["bench", "launches", "--set", "runtime.grouped=false"])
    assert refused.exit_code == 2
