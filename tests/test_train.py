"""Whole runs on a tiny drawn demo: what they leave behind, how they stop and fail."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file
from whole_runs import TINY, run, saved_state

import fastuda.files.disk as disk_module
import fastuda.training.iteration as iteration_module
import fastuda.training.stage as stage_module
from fastuda.data.datasets import prepare_all, with_demo_data
from fastuda.distributed.ranks import ALONE
from fastuda.errors import FastudaError, UnreadableError, UsageError
from fastuda.files.lock import held
from fastuda.recipe import Recipe
from fastuda.recipe.file import load_recipe
from fastuda.report.display import Display
from fastuda.runs.checkpoint.store import CheckpointStore
from fastuda.runs.folder import RunFolder
from fastuda.runtime.stop import StoppedError
from fastuda.runtime.watchdog import Watchdog
from fastuda.study.conduct import conduct
from fastuda.study.plan import plan_repeats
from fastuda.training.run import train


def test_a_run_leaves_recipe_log_events_checkpoints_pictures_and_results(finished: Any) -> None:
    path, results, _ = finished
    assert load_recipe(str(path / "recipe.toml")).train.iterations == 6
    assert json.loads((path / "results.json").read_text()) == results
    assert list((path / "tensorboard").iterdir())
    models = {f"{stage}-{which}.safetensors" for stage in ("source_only", "adapted") for which in ("last", "best")}
    states = {f"adapted-000000{iteration}.state.safetensors" for iteration in (3, 6)}
    assert {p.name for p in (path / "checkpoints").iterdir()} == models | states
    with Image.open(path / "pictures" / "comparison.png") as picture:
        assert picture.width > 4 * 400
    assert not [p for p in path.rglob("*") if p.name.endswith(".part")]


def test_results_name_scores_versions_data_and_seconds(finished: Any) -> None:
    _, results, _ = finished
    for stage, iteration in (("source_only", 4), ("adapted", 6)):
        scores = results[stage]
        assert scores["last"]["iteration"] == iteration
        assert scores["miou"] == scores["last"]["miou"]
        assert scores["protocol"] == "full"
        assert set(scores["iou"]) == set(load_recipe("demo").classes.build().names)
        known = [value for value in scores["iou"].values() if value is not None]
        assert scores["miou"] == pytest.approx(sum(known) / len(known), abs=1e-3)
        assert set(scores["last"]["by_protocol"]) == {"full", "released"}
        assert scores["best"]["miou"] >= scores["last"]["miou"]
        assert scores["best"]["chosen_on"] == "evaluation set"
        assert results["seconds"][stage] > 0
    assert results["seed"] == 0
    assert {"torch", "nvidia-dali-cuda130", "fastuda"} <= set(results["versions"])
    assert len(set(results["data"].values())) == 3


def test_the_log_has_every_loss_of_the_method_and_every_evaluation(finished: Any) -> None:
    rows = [json.loads(line) for line in (finished[0] / "log.jsonl").read_text().splitlines()]
    adapted = [row for row in rows if row["stage"] == "adapted" and "losses" in row]
    assert [row["iteration"] for row in adapted] == [2, 3, 4, 6]
    assert all(0 <= row["waiting_for_data"] <= 1 for row in adapted)
    assert set(adapted[0]["losses"]) == {"source", "mix", "htcm", "pixel", "prototype", "total"}
    assert [row["iteration"] for row in rows if "scores" in row] == [3, 4, 3, 6]


def test_a_checkpoint_knows_how_many_rows_there_were(finished: Any) -> None:
    rows = (finished[0] / "log.jsonl").read_text().splitlines()
    assert CheckpointStore(finished[0] / "checkpoints").newest_sound().notes.rows == len(rows)


def test_the_progress_line_tells_pace_losses_and_score_and_compares_a_demo_with_no_paper(finished: Any) -> None:
    assert "adaptation 6/6 · " in finished[2]
    last = next(line for line in finished[2].splitlines() if line.startswith("adaptation 6/6"))
    for part in (" it/s", "prototype ", "mIoU ", " left"):
        assert part in last
    assert "paper" not in finished[2]
    assert "at this pace" not in finished[2]


def test_a_run_goes_on_when_nothing_can_be_shown_and_syncs_its_log_before_every_checkpoint(
    tmp_path: Path, tiny: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    synced: list[Path] = []
    monkeypatch.setattr(RunFolder, "sync_log", lambda folder: synced.append(folder.log))
    recipe = tiny("warmup.iterations=0", "train.iterations=2", "train.evaluate_every=2")
    results = train(recipe, tmp_path / "run", name="demo", device="cpu", display=Display(Console(file=Closed())))
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == results
    assert synced == [tmp_path / "run" / "log.jsonl"] * results["checkpoints"]["written"]


def test_an_existing_run_folder_is_refused_and_left_alone(finished: Any, tiny: Callable[..., Recipe]) -> None:
    path = finished[0]
    before = {p: p.stat().st_mtime_ns for p in path.rglob("*")}
    with pytest.raises(FastudaError, match=r"whole: exists already; continue it with --resume"):
        run(tiny(), path)
    assert {p: p.stat().st_mtime_ns for p in path.rglob("*")} == before


def test_the_run_needs_no_network(tmp_path: Path, tiny: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the demo opened a socket")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    # Another data folder, so that drawing and packing run under the ban as well.
    results, _ = run(tiny(f"data.cache={tmp_path / 'own cache'}", "train.iterations=1"), tmp_path / "run")
    assert results["adapted"]["last"]["iteration"] == 1


def test_an_evaluation_split_without_a_class_of_the_recipe_is_refused(
    finished: Any, tmp_path: Path, cache: Path
) -> None:
    own = load_recipe(str(finished[0] / "recipe.toml"))
    roots = [f"source.root={own.source.root}", f"target.root={own.target.root}"]
    names = ["classes.names=['lava', 'magma']", "classes.palette=[[1, 2, 3], [4, 5, 6]]"]
    with pytest.raises(FastudaError, match=r"no pixel of the \w+ labels has a class of the recipe"):
        run(load_recipe("demo", [*TINY, *roots, *names, f"data.cache={cache}"]), tmp_path / "run")


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (["data.cache=/nowhere/\udcfc"], "data.cache"),
        (["source.root=/nowhere/\udcfc"], "source.root"),
        (["eval.subsets={'r\udcfc' = ['road']}"], r"eval.subsets.r\xfc"),
        (["description=f\udcfcr"], "description"),
    ],
)
def test_what_a_runs_recipe_cannot_hold_is_named_before_any_folder_is_made(
    settings: list[str], field: str, tmp_path: Path, tiny: Callable[..., Recipe]
) -> None:
    recipe = tiny(*settings)
    with pytest.raises(
        UsageError, match=rf"^{re.escape(field)}: \S+ is no UTF-8, so a run's recipe.toml cannot hold it"
    ):
        run(recipe, tmp_path / "run")
    plan = plan_repeats(recipe, "demo", 2, tmp_path / "repeat")
    with pytest.raises(UsageError, match=rf"^{re.escape(field)}: "):
        conduct(plan, tmp_path / "repeat", "repeat", device="cpu", display=Display(Console()))
    assert not list(tmp_path.iterdir())


def test_a_cache_that_the_demos_recipe_cannot_hold_is_named_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTUDA_CACHE", str(tmp_path / "\udcfc"))
    with pytest.raises(UsageError, match=r"^source\.root: .*/\\xfc/demo/.* is no UTF-8"):
        run(load_recipe("demo", TINY), tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_init_skips_the_warm_up_and_starts_from_that_network(
    finished: Any, tmp_path: Path, tiny: Callable[..., Recipe]
) -> None:
    init = finished[0] / "checkpoints" / "source_only-last.safetensors"
    results, output = run(tiny(), tmp_path / "run", init=init)
    assert results["source_only"]["last"]["iteration"] == 0
    assert results["source_only"]["iou"] == finished[1]["source_only"]["iou"]
    assert "Warm-up" not in output
    expected, got = saved_state(finished[0]), saved_state(tmp_path / "run")
    assert all(torch.equal(expected[key], got[key]) for key in expected)


def test_another_seed_gives_another_run(finished: Any, tmp_path: Path, tiny: Callable[..., Recipe]) -> None:
    run(tiny("seed=1"), tmp_path / "run")
    expected, got = saved_state(finished[0]), saved_state(tmp_path / "run")
    key = "student.backbone.layer4.0.conv1.weight"
    assert not torch.equal(expected[key], got[key])


def test_a_non_finite_loss_names_iteration_and_samples_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, tiny: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = iteration_module.adaptation_step, []

    def broken(state: Any, source: Any, target: Any, *rest: Any) -> Any:
        calls.append((source.names, target.names))
        if len(calls) == 5:
            with torch.no_grad():
                state.student.head.branches[0].bias.fill_(torch.nan)
        return original(state, source, target, *rest)

    monkeypatch.setattr(iteration_module, "adaptation_step", broken)
    with pytest.raises(FastudaError) as caught:
        run(tiny(), tmp_path / "run")
    message = str(caught.value)
    assert "not finite at iteration 5 of the adaptation" in message
    for name in (*calls[4][0], *calls[4][1]):
        assert name in message
    assert "the last good checkpoint, adapted-0000003.state.safetensors of iteration 3, is kept and was ver" in message
    kept = load_file(tmp_path / "run" / "checkpoints" / "adapted-last.safetensors")
    assert all(torch.isfinite(value).all() for value in kept.values() if value.is_floating_point())


def test_a_full_disk_while_saving_leaves_no_half_checkpoint(
    tmp_path: Path, tiny: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(number: int) -> None:
        if ".state." in os.readlink(f"/proc/self/fd/{number}"):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disk_module.os, "fsync", full)
    with pytest.raises(FastudaError, match=r"source_only-0000000\.state\.safetensors: no space left on the disk"):
        run(tiny(), tmp_path / "run")
    assert not (tmp_path / "run").exists()  # there is nothing to go on from


def test_statistics_gathered_on_target_images_change_the_adapted_model_alone(
    finished: Any, tmp_path: Path, tiny: Callable[..., Recipe]
) -> None:
    run(tiny("eval.batch_norm='target'"), tmp_path / "run")
    for stage, differs in (("source_only", False), ("adapted", True)):
        file = f"checkpoints/{stage}-last.safetensors"
        mean = "backbone.layer4.1.bn2.running_mean"
        assert torch.equal(load_file(finished[0] / file)[mean], load_file(tmp_path / "run" / file)[mean]) != differs


@pytest.mark.parametrize("recipe", ["gta2cs-released", "gta2cs-edge", "gta2cs-fast"])
def test_other_recipes_train_on_the_same_data(recipe: str, finished: Any, cache: Path, tmp_path: Path) -> None:
    own = load_recipe(str(finished[0] / "recipe.toml"))
    settings = [s for s in TINY if not s.startswith("demo.")]
    roots = [f"source.root={own.source.root}", f"target.root={own.target.root}"]
    extra = [
        "model.depth=18",
        "model.weights=random",
        f"data.cache={cache}",
        "train.iterations=2",
        "warmup.iterations=1",
    ]
    results, _ = run(load_recipe(recipe, [*settings, *roots, *extra]), tmp_path / "run")
    assert np.isfinite(results["adapted"]["miou"])


def test_a_stop_when_all_is_trained_lets_a_run_finish(
    finished: Any, tmp_path: Path, tiny: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write = tmp_path / "run", RunFolder.write_results

    def asked(folder: RunFolder, results: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        write(folder, results)

    monkeypatch.setattr(RunFolder, "write_results", asked)
    results, _ = run(tiny("train.iterations=1", "warmup.iterations=0"), path)
    assert json.loads((path / "results.json").read_text()) == results


@pytest.mark.parametrize("what", ["demo", "weights", "pack"])
def test_a_run_that_waits_for_another_process_lives_and_hears_a_stop(
    what: str, finished: Any, cache: Path, tmp_path: Path, tiny: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny("model.weights=file:///net.pth") if what == "weights" else tiny()
    (cache / "weights").mkdir(exist_ok=True)
    folder = prepare_all(with_demo_data(recipe, _silent), _silent).source.folder if what == "pack" else cache / what
    signs: list[float] = []
    monkeypatch.setattr(Watchdog, "alive", lambda _: signs.append(time.monotonic()))
    monkeypatch.setattr("fastuda.training.run.require_memory", lambda *_: None)
    other = threading.Thread(target=_hold_and_ask, args=(folder, signs, held_now := threading.Event()))
    other.start()
    held_now.wait(10)
    with pytest.raises(StoppedError, match="SIGTERM: stopped before the first checkpoint; nothing is lost"):
        run(recipe, tmp_path / "run")
    assert other.is_alive()  # and so it still held the folder
    other.join()


def _silent(_: str) -> Callable[[int, int], None]:
    return lambda done, total: None


def _hold_and_ask(folder: Path, signs: list[float], held_now: threading.Event) -> None:
    """Hold the folder, ask for a stop once there were signs of life for a while, and let go seconds later."""
    with held(folder, "working", wait=False):
        held_now.set()
        end = time.monotonic() + 10
        while len(signs) < 6 and time.monotonic() < end:
            time.sleep(0.05)
        if len(signs) >= 6:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(3)


def test_a_loss_that_was_not_finite_is_told_though_no_checkpoint_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise UnreadableError("a: this checkpoint cannot be read (Input/output error)", "Input/output error")

    store, writer = SimpleNamespace(newest_sound=refused), SimpleNamespace(wait=lambda: None)
    shared: Any = SimpleNamespace(store=store, checkpoints=writer, ranks=ALONE)
    monkeypatch.setattr(stage_module, "_names_at", lambda *_: ["x"])
    stage: Any = SimpleNamespace(work="warm-up")
    with pytest.raises(FastudaError, match=r"not finite at iteration 5 .*verified: a: this checkpoint cannot be read"):
        stage_module._refuse_nonfinite(shared, stage, 4)
