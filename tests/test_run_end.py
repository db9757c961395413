"""The end of a run: models that come again from their checkpoint, and the picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from whole_runs import near_the_end, run

import fastuda.evaluation.comparison as comparison_module
import fastuda.training.run as train_module
from fastuda.errors import UnreadableError
from fastuda.model.weights import read_weights
from fastuda.recipe import Recipe
from fastuda.runs.folder import RunFolder


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", ["flipped", "gone"])
def test_the_last_model_is_written_anew_in_the_same_bits(
    damage: str, finished: Any, tmp_path: Path, tiny: Callable[..., Recipe], caplog: pytest.LogCaptureFixture
) -> None:
    path = near_the_end(finished, tmp_path)
    model = path / "checkpoints" / "adapted-last.safetensors"
    if damage == "flipped":
        _flip(model)
    else:
        model.unlink()
    results, _ = run(tiny(), path, resume=True)
    assert results["adapted"] == finished[1]["adapted"]
    whole = finished[0] / "checkpoints" / "adapted-last.safetensors"
    expected, found = load_file(whole), load_file(model)
    assert expected.keys() == found.keys()
    assert all(torch.equal(value, found[key]) for key, value in expected.items())
    assert read_weights(model).metadata == read_weights(whole).metadata
    (said,) = [line for line in caplog.messages if line.startswith(f"{model}: ")]
    assert ("gone since it was written" if damage == "gone" else "damaged") in said
    assert said.endswith("; written anew, in the same bits, from adapted-0000006.state.safetensors")
    assert (path / "pictures" / "comparison.png").exists()
    assert not list(path.rglob("*.damaged"))


def test_models_of_gathered_statistics_come_again_in_the_same_bits_too(
    finished: Any, tmp_path: Path, tiny: Callable[..., Recipe]
) -> None:
    recipe, path = tiny("eval.batch_norm='target'", "warmup.iterations=1", "train.iterations=2"), tmp_path / "run"
    run(recipe, path)
    model = path / "checkpoints" / "adapted-last.safetensors"
    expected = load_file(model)
    model.unlink()
    run(recipe, path, resume=True)
    found = load_file(model)
    assert all(torch.equal(value, found[key]) for key, value in expected.items())


def test_a_model_that_nothing_is_left_of_is_set_aside_and_the_run_finishes(
    finished: Any, tmp_path: Path, tiny: Callable[..., Recipe], caplog: pytest.LogCaptureFixture
) -> None:
    path = near_the_end(finished, tmp_path)
    model = path / "checkpoints" / "source_only-last.safetensors"
    _flip(model)
    results, _ = run(tiny(), path, resume=True)
    assert {stage: results[stage] for stage in ("source_only", "adapted")} == {
        stage: finished[1][stage] for stage in ("source_only", "adapted")
    }
    assert f"{model}: damaged: its content is not what was written" in caplog.text
    assert (
        "no checkpoint of its iteration 4 is left to write it anew from; its scores stay in results.json" in caplog.text
    )
    assert not model.exists()
    assert model.with_name(f"{model.name}.damaged").exists()
    with (
        Image.open(path / "pictures" / "comparison.png") as picture,
        Image.open(finished[0] / "pictures" / "comparison.png") as whole,
    ):
        assert picture.width < whole.width


def test_a_model_that_vanishes_while_the_run_goes_on_is_written_again_at_its_end(
    tmp_path: Path, tiny: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, original = tmp_path / "run" / "checkpoints" / "adapted-last.safetensors", train_module._compare

    def compared(*rest: Any) -> None:
        model.unlink()
        original(*rest)

    monkeypatch.setattr(train_module, "_compare", compared)
    run(tiny("warmup.iterations=1", "train.iterations=1"), tmp_path / "run")
    assert read_weights(model).origin == "fastuda"


def test_a_picture_that_finds_no_memory_costs_no_scores(
    finished: Any, tmp_path: Path, tiny: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    path = near_the_end(finished, tmp_path)
    monkeypatch.setattr(comparison_module, "read_model", full)
    results, _ = run(tiny(), path, resume=True)
    assert json.loads((path / "results.json").read_text()) == results
    assert results["adapted"] == finished[1]["adapted"]
    picture = path / "pictures" / "comparison.png"
    assert not picture.exists()
    assert f"{picture}: not drawn; the GPU's memory is full, and the run is complete without it" in caplog.text


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "this machine's memory is full"),
        (UnreadableError("a: cannot be read: Too many open files", "Too many open files"), "a: cannot be read: Too m"),
        (RuntimeError("another"), None),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("place", ["_sound_models", "comparison_grid"])
def test_a_picture_is_gone_without_for_want_of_memory_or_of_files_alone(
    place: str, error: Exception, said: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def full(*_: Any) -> None:
        raise error

    names = ("folder", "data", "recipe", "passes", "device")
    shared: Any = SimpleNamespace(
        **{**dict.fromkeys(names, SimpleNamespace(evaluation=None)), "folder": RunFolder(tmp_path)}
    )
    monkeypatch.setattr(train_module, "_sound_models", lambda *_: set())
    monkeypatch.setattr(train_module, place, full)
    if said is None:
        with pytest.raises(RuntimeError, match="another"):
            train_module._compare(shared, None)  # type: ignore[arg-type]
        return
    train_module._compare(shared, None)  # type: ignore[arg-type]
    assert f"comparison.png: not drawn; {said}" in caplog.text
