"""Losses read back: means of windows, in order, with rate, learning rate and the first loss that was not finite."""

from __future__ import annotations

import pytest
import torch
from steps import batches, begin, tiny

import fastuda.training.readback as readback_module
from fastuda.method.state import TrainingState
from fastuda.model.passes import Passes
from fastuda.model.place import placed
from fastuda.runtime.fast_path import FastPath
from fastuda.training.iteration import Iteration
from fastuda.training.readback import Readback


class Clock:
    """Stands in for the host's clock: time passes when a test says so."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(readback_module, "time", clock := Clock())
    return clock


def test_a_reading_holds_the_windows_means_rate_and_learning_rate(clock: Clock) -> None:
    state = begin(tiny("gta2cs"))
    readback = Readback(state)
    for value in (1.0, 2.0, 6.0):
        clock.now += 0.25
        readback.add({"source": torch.tensor(value), "total": torch.tensor(2 * value)})
    clock.now += 0.5
    state.optimizer.param_groups[0]["lr"].fill_(0.125)
    readback.close(3, waited=0.125)
    clock.now += 8
    (reading,) = readback.ready()
    assert reading.iteration == 3
    assert reading.losses == {"source": 3.0, "total": 6.0}
    assert (reading.lr, reading.first_nonfinite) == (0.125, -1)
    assert reading.seconds == 1.0, "two iterations and the half second before the window's end; the first is not timed"
    assert reading.iterations_per_second == 2.0
    assert reading.waited == 0.125
    assert list(readback.ready()) == []


def test_losses_that_the_next_iteration_overwrites_are_counted_all_the_same() -> None:
    readback, loss = Readback(begin(tiny("gta2cs"))), torch.zeros(())
    for value in (1.0, 3.0):
        loss.fill_(value)
        readback.add({"total": loss})
    readback.close(2)
    assert next(readback.all()).losses == {"total": 2.0}


def test_windows_come_out_in_order_and_hold_their_own() -> None:
    state = begin(tiny("gta2cs"))
    readback = Readback(state)
    for iteration, value in enumerate((1.0, 5.0), 1):
        readback.add({"total": torch.tensor(value)})
        if iteration == 2:
            state.first_nonfinite.fill_(1)
        readback.close(iteration)
    readings = list(readback.all())
    assert [(r.iteration, r.losses["total"], r.first_nonfinite) for r in readings] == [(1, 1.0, -1), (2, 5.0, 1)]


def test_the_time_of_a_stages_first_iteration_does_not_count(clock: Clock) -> None:
    readback = Readback(begin(tiny("gta2cs")))
    clock.now += 60  # compiling, capturing
    readback.add({"total": torch.tensor(1.0)})
    clock.now += 0.25
    readback.add({"total": torch.tensor(3.0)})
    assert readback.open_seconds() == 0.25
    readback.close(2)
    clock.now += 0.5
    readback.add({"total": torch.tensor(1.0)})
    readback.close(3)
    first, second = readback.ready()
    assert first.losses == {"total": 2.0}
    assert (first.seconds, first.iterations_per_second) == (0.25, 4.0)
    assert (second.seconds, second.iterations_per_second) == (0.5, 2.0)


def test_a_window_of_the_first_iteration_alone_has_its_time(clock: Clock) -> None:
    readback = Readback(begin(tiny("gta2cs")))
    clock.now += 0.5
    readback.add({"total": torch.tensor(1.0)})
    readback.close(1)
    (reading,) = readback.ready()
    assert (reading.seconds, reading.iterations_per_second) == (0.5, 2.0)


def test_a_restart_forgets_the_time_between(clock: Clock) -> None:
    readback = Readback(begin(tiny("gta2cs")))
    clock.now += 60
    readback.restart()
    clock.now += 0.25
    readback.add({"total": torch.tensor(1.0)})
    readback.close(1)
    assert next(readback.all()).seconds == 0.25


def test_a_wait_longer_than_its_window_is_all_of_it(clock: Clock) -> None:
    readback = Readback(begin(tiny("gta2cs")))
    for _ in range(2):
        clock.now += 0.25
        readback.add({"total": torch.tensor(1.0)})
    readback.close(2, waited=3.0)
    assert next(readback.all()).waited == 1.0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_reading_back_does_not_wait_for_the_gpu() -> None:
    recipe, device = tiny("gta2cs"), torch.device("cuda", torch.cuda.current_device())
    fast = FastPath.of(recipe.runtime, device)
    state = TrainingState.begin(placed(begin(recipe).student, fast, device), recipe.train.optimizer, 30, 0.9)
    iteration = Iteration(state, recipe, Passes.of(recipe, device), fast)
    source, target = (batch.map(lambda t: t.to(device)) for batch in batches(recipe))
    iteration(source, target)
    readback = Readback(state)
    readback.add(iteration(source, target))
    readback.close(2)
    list(readback.all())
    try:
        torch.cuda.set_sync_debug_mode("error")
        for i in range(4):
            readback.add(iteration(source, target))
            readback.close(i + 3)
            list(readback.ready())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(reading.seconds > 0 for reading in readback.all())
