"""Runs, evaluations and predictions of several ranks: one writes, all agree, and nothing differs from one process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from in_ranks import in_ranks
from PIL import Image
from rank_runs import Told, conversation, predicted, scored, trained
from safetensors.torch import load_file
from whole_runs import TINY, run

import fastuda
from fastuda.distributed.place import Place
from fastuda.errors import UsageError
from fastuda.recipe import Recipe
from fastuda.recipe.file import load_recipe
from fastuda.runs.checkpoint.store import CheckpointStore
from fastuda.runs.record import RunRecord

SHORT = [*TINY, "warmup.iterations=2", "train.iterations=6", "train.evaluate_every=3"]


def recipe_of(cache: Path, *settings: str) -> Recipe:
    return load_recipe("demo", [*SHORT, f"data.cache={cache}", *settings])


def on_ranks(size: int, tmp: Path, recipe: Recipe, path: Path, of_rank: Any = None, **options: Any) -> list[Told]:
    folder = tmp / f"ranks-{len(list(tmp.iterdir()))}"
    folder.mkdir()
    found: list[Told] = in_ranks(size, folder, trained, recipe, path, options, of_rank or {})
    return found


def last_weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "checkpoints" / "adapted-last.safetensors")


def require_same_run(one: Path, other: Path) -> None:
    """Weights, scores and logged losses to the last bit."""
    mine, theirs = last_weights(one), last_weights(other)
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []
    rows = [[json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()] for path in (one, other)]
    for here, there in zip(*rows, strict=True):
        assert here.get("losses") == there.get("losses")
        assert here.get("scores") == there.get("scores")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[Told]]:
    """Cache, folder and what both ranks say of an undisturbed run of two."""
    tmp = tmp_path_factory.mktemp("pair")
    return tmp / "cache", tmp / "run", on_ranks(2, tmp, recipe_of(tmp / "cache"), tmp / "run")


def test_ranks_talk(tmp_path: Path) -> None:
    for own in in_ranks(3, tmp_path, conversation):
        assert own == {
            "shared": "of 0",
            "gathered": [0, 1, 2],
            "agreed": "early",
            "nobody": None,
            "asked": True,
            "unasked": False,
            "sum": [6, 30],
            "broadcast": [0.0, 0.0, 0.0],
            "layout": True,
            "order": ["in"],
        }


def test_one_rank_writes_and_shows_and_all_return_the_same(pair: Any) -> None:
    _, path, (first, second) = pair
    assert first.error == second.error == ""
    assert first.results == second.results == json.loads((path / "results.json").read_text())
    assert first.results["ranks"] == 2
    assert "adaptation 6" in first.console
    assert second.console == ""
    rows = [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows if "scores" in row and row["stage"] == "adapted"] == [3, 6]
    record = RunRecord.read(path / "run.json")
    assert record.identity.world_size == 2
    assert len(record.history) == 1


def test_scores_of_shared_evaluations_are_those_of_one_process(pair: Any, tmp_path: Path) -> None:
    _, path, (first, _) = pair
    assert first.results is not None
    alone = fastuda.evaluate(fastuda.load(path, device="cpu"), display=False)
    assert alone.by_protocol["full"].to_json()["iou"] == first.results["adapted"]["iou"]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (expected,) = in_ranks(1, tmp_path / "a", scored, path, tmp_path / "alone")
    for own in in_ranks(3, tmp_path / "b", scored, path, tmp_path / "together"):
        assert own == expected
    files = sorted(file.relative_to(tmp_path / "alone") for file in (tmp_path / "alone").rglob("*") if file.is_file())
    assert len(files) == 4  # three labels and the table
    for file in files:
        assert (tmp_path / "alone" / file).read_bytes() == (tmp_path / "together" / file).read_bytes()


def test_predictions_are_shared_and_faults_told_by_all(pair: Any, tmp_path: Path) -> None:
    path = pair[1]
    images = []
    for number in range(5):
        images.append(tmp_path / f"{number}.png")
        Image.new("RGB", (64, 32), (40 * number, 90, 20)).save(images[-1])
    images[3].write_bytes(b"no picture")
    found = in_ranks(2, tmp_path, predicted, path, images, tmp_path / "out")
    assert [done for _, done in found] == [3, 2]
    for faults, _ in found:
        assert len(faults) == 1
        assert str(images[3]) in faults[0]
    written = sorted(file.stem for file in (tmp_path / "out").glob("*_overlay.png"))
    assert written == [f"{number}_overlay" for number in (0, 1, 2, 4)]


def test_a_stop_that_one_rank_hears_stops_all_at_one_iteration_and_goes_on_exactly(pair: Any, tmp_path: Path) -> None:
    cache, undisturbed, _ = pair
    path = tmp_path / "run"
    told = on_ranks(2, tmp_path, recipe_of(cache), path, {1: {"stop_at": 4}})
    assert [one.iterations for one in told] == [5, 5]  # an iteration after it was heard
    for one in told:
        assert one.error.startswith("StoppedError: SIGUSR1: stopped at iteration 5 of the adaptation, everything saved")
    assert CheckpointStore(path / "checkpoints").newest_sound().iteration == 5
    told = on_ranks(2, tmp_path, recipe_of(cache), path, resume=True)
    assert [one.error for one in told] == ["", ""]
    require_same_run(path, undisturbed)


def test_a_stop_amid_an_evaluation_of_one_rank_breaks_it_off_on_all(pair: Any, tmp_path: Path) -> None:
    cache, undisturbed, _ = pair
    path = tmp_path / "run"
    told = on_ranks(2, tmp_path, recipe_of(cache), path, {0: {"stop_while_scoring": True}})
    for one in told:
        assert one.error.startswith("StoppedError: SIGUSR1: stopped at iteration 3 of the adaptation")
    told = on_ranks(2, tmp_path, recipe_of(cache), path, resume=True)
    assert [one.error for one in told] == ["", ""]
    require_same_run(path, undisturbed)


def test_a_loss_that_is_not_finite_on_one_rank_is_told_once_with_every_ranks_samples(pair: Any, tmp_path: Path) -> None:
    told = on_ranks(2, tmp_path, recipe_of(pair[0]), tmp_path / "run", {1: {"poisoned": 2}})
    tellers = [one.error for one in told if "not finite" in one.error]
    assert len(tellers) == 1
    assert tellers[0] == told[0].error
    assert "not finite at iteration 2 of the adaptation" in tellers[0]
    # Two images a domain and rank (protocol row 21), each with the rank that it was of.
    assert tellers[0].count(" of rank 0") == tellers[0].count(" of rank 1") == 4


def test_another_number_of_ranks_is_refused_unless_forced(pair: Any, tmp_path: Path) -> None:
    cache, path = pair[0], tmp_path / "run"
    on_ranks(2, tmp_path, recipe_of(cache), path, {0: {"stop_at": 2}})
    with pytest.raises(UsageError, match=r"ranks: the run has 2, here is 1; .*not be the same run(.|\n)*--force"):
        run(recipe_of(cache), path, resume=True)
    results, _ = run(recipe_of(cache), path, resume=True, force=True)
    assert results["ranks"] == 1
    assert any(line.startswith("ranks: the run has 2") for line in results["forced"])


def test_a_sample_that_fails_on_one_rank_is_replaced_on_all_and_remembered(pair: Any, tmp_path: Path) -> None:
    recipe = recipe_of(pair[0], "data.on_error=skip")
    told = on_ranks(2, tmp_path, recipe, tmp_path / "run", {1: {"loses": 2}})
    assert [one.error for one in told] == ["", ""]
    (results,) = {json.dumps(one.results) for one in told}
    failed = json.loads(results)["failed"]["target"]
    assert [*failed.values()] == ["lost: is gone"]
    assert CheckpointStore(tmp_path / "run" / "checkpoints").newest_sound().notes.failed["target"] == failed
    (name,) = failed
    said = [line for one in told for line in one.warnings if "takes its place" in line]
    assert len(said) == 1
    assert name in said[0]
    # Too many are too many wherever each of them failed.
    few = recipe_of(pair[0], "data.on_error=skip", "data.max_failed=1")
    told = on_ranks(2, tmp_path, few, tmp_path / "few", {0: {"loses": 1}, 1: {"loses": 2}})
    assert any("2 samples failed" in one.error and "data.max_failed allows 1" in one.error for one in told)


def test_the_environment_says_which_rank_it_is() -> None:
    said = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    assert Place.of_environment({}) == Place()
    assert Place.of_environment(said) == Place(5, 8, 1, 4)
    started = Place.of_environment({**said, "TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_RESTART_COUNT": "2"})
    assert (started.launched, started.num_restarts) == (True, 2)
    with pytest.raises(UsageError, match=r"names RANK, WORLD_SIZE and not LOCAL_RANK, LOCAL_WORLD_SIZE.*torchrun"):
        Place.of_environment({"RANK": "0", "WORLD_SIZE": "2"})
    assert Place.of_environment({"WORLD_SIZE": "1"}) == Place()
    with pytest.raises(UsageError, match="have to be numbers"):
        Place.of_environment({**said, "RANK": "first"})
    with pytest.raises(UsageError, match="rank 9 of 8"):
        Place.of_environment({**said, "RANK": "9"})
