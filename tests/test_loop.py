"""The loop: each iteration on its own batches of both domains, from any start, with the waiting counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from steps import PLAIN, differ, tensors

import fastuda.training.loop as loop_module
from fastuda.data.datasets import Datasets
from fastuda.data.loading.training_loader import TrainingLoader
from fastuda.memory.estimate import TrainingWork
from fastuda.method.state import TrainingState
from fastuda.method.step import adaptation_step, warmup_step
from fastuda.model.build import build_network
from fastuda.model.passes import Passes
from fastuda.model.place import placed
from fastuda.recipe import Recipe
from fastuda.recipe.file import load_recipe
from fastuda.runtime import compiled
from fastuda.runtime.fast_path import FastPath
from fastuda.training.loop import Loop
from fastuda.training.readback import Readback
from fastuda_bench.made_data import bench_data

CPU = torch.device("cpu")
SETTINGS = [
    "model.depth=18",
    "model.width=0.0625",
    "model.weights=random",
    "views.source_size=[64, 32]",
    "views.target_size=[64, 32]",
    "views.crop_size=[32, 32]",
    "runtime.loader_threads=1",
]


@pytest.fixture(scope="module", params=["png", "jpeg"])
def fed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Datasets]:
    recipe = load_recipe("gta2cs", [*SETTINGS, f"data.pack={request.param}"])
    data, _ = bench_data(recipe, tmp_path_factory.mktemp("made"), lambda title: lambda done, total: None)
    return recipe, data


def begin(recipe: Recipe, device: torch.device = CPU) -> TrainingState:
    torch.manual_seed(0)
    student = placed(build_network(recipe), FastPath.of(recipe.runtime, device), device).train()
    return TrainingState.begin(student, recipe.train.optimizer, 20, recipe.method.ema_decay)


@pytest.mark.parametrize("work", ["adaptation", "warm-up"])
def test_a_loop_trains_on_the_loaders_batches_in_order_from_where_the_state_stands(
    fed: tuple[Recipe, Datasets], work: TrainingWork
) -> None:
    recipe, data = fed
    state, plain, passes = begin(recipe), begin(recipe), Passes.of(recipe, CPU)
    for one in (state, plain):
        one.iteration.fill_(3)
    loop = Loop(state, data, recipe, passes, PLAIN, work)
    source = TrainingLoader(data.source, "source", recipe, CPU, start_iteration=3)
    target = TrainingLoader(data.target, "target", recipe, CPU, start_iteration=3)
    for _ in range(2):
        losses = loop()
        if work == "adaptation":
            expected = adaptation_step(plain, next(source), next(target), recipe, passes)
        else:
            expected = warmup_step(plain, next(source), recipe, passes)
        assert {name: float(loss) for name, loss in losses.items()} == {k: float(v) for k, v in expected.items()}
    assert differ(tensors(state), tensors(plain)) == []
    assert loop.way == "eager"


def test_waiting_is_counted_and_taken_once(fed: tuple[Recipe, Datasets], monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, data = fed
    ticks = iter(range(100))
    loop = Loop(begin(recipe), data, recipe, Passes.of(recipe, CPU), PLAIN, "adaptation")
    monkeypatch.setattr(loop_module.time, "perf_counter", lambda: float(next(ticks)))
    loop()
    loop()
    assert loop.take_waited() == 2.0
    assert loop.take_waited() == 0.0


def test_the_host_stays_two_iterations_ahead_of_a_gpu_and_no_more(
    fed: tuple[Recipe, Datasets], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, data = fed
    recorded: list[int] = []
    waited_for: list[int] = []

    class Event:
        def record(self) -> None:
            self.number = len(recorded)
            recorded.append(self.number)

        def synchronize(self) -> None:
            waited_for.append(self.number)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    loop = Loop(begin(recipe), data, recipe, Passes.of(recipe, CPU), PLAIN, "warm-up")
    loop._on_gpu = True
    for _ in range(5):
        loop()
    assert recorded == [0, 1, 2, 3, 4]
    assert waited_for == [0, 1, 2]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_loading_training_and_reading_back_wait_for_nothing(fed: tuple[Recipe, Any], tmp_path: Path) -> None:
    recipe, data = fed
    device = torch.device("cuda", torch.cuda.current_device())
    compiled.forget()
    state = begin(recipe, device)
    loop = Loop(state, data, recipe, Passes.of(recipe, device), FastPath.of(recipe.runtime, device), "adaptation")
    readback = Readback(state)
    for i in range(2):
        readback.add(loop())
        readback.close(i + 1)
    list(readback.all())
    assert loop.way == "compiled graph"
    try:
        torch.cuda.set_sync_debug_mode("error")
        for i in range(4):
            readback.add(loop())
            readback.close(i + 3)
            list(readback.ready())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    readings = list(readback.all())
    assert all(torch.isfinite(torch.tensor(list(reading.losses.values()))).all() for reading in readings)
    compiled.forget()
