"""A checkpoint holds everything: what is restored goes on in the same bits, and nothing else is taken for one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fastuda.data.loading.batch import DomainBatch
from fastuda.errors import FastudaError
from fastuda.method.state import TrainingState
from fastuda.method.step import warmup_step
from fastuda.model.deeplab.network import DeepLabV2
from fastuda.model.passes import Passes
from fastuda.recipe import Recipe
from fastuda.runs.checkpoint import read_state, restore_state, save_model, save_state
from fastuda.runs.checkpoint.notes import Notes, Record, StageNotes
from fastuda.runs.checkpoint.snapshot import take_snapshot
from fastuda.runs.checkpoint.state_file import require_fit, write_state

_SCORES = {"miou": 12.5, "iou": {"road": 12.5, "train": None}, "protocol": "full", "by_protocol": {"full": 12.5}}
NOTES = Notes(
    warmup=True,
    stages={"adapted": StageNotes(seconds=3.25, last=Record.model_validate({"iteration": 3, "absent": [], **_SCORES}))},
    checkpoints=4,
)

Begin = Callable[..., TrainingState]


@pytest.fixture
def begin(tiny_recipe: Callable[..., Recipe]) -> Begin:
    def begun(num_classes: int = 19, seed: int = 0) -> TrainingState:
        torch.manual_seed(seed)
        recipe = tiny_recipe()
        model = DeepLabV2(num_classes, depth=18, width=recipe.model.width).train()
        return TrainingState.begin(model, recipe.train.optimizer, 100, ema_decay=0.9)

    return begun


@pytest.fixture
def step(tiny_recipe: Callable[..., Recipe]) -> Callable[[TrainingState], None]:
    recipe = tiny_recipe()

    def stepped(state: TrainingState) -> None:
        generator = torch.Generator().manual_seed(int(state.iteration))
        images = torch.randint(0, 256, (2, 33, 49, 3), dtype=torch.uint8, generator=generator)
        labels = torch.randint(0, 19, (2, 33, 49), dtype=torch.uint8, generator=generator)
        empty = torch.empty(0)
        batch = DomainBatch(images, labels, images, images, labels, empty, empty, ["a", "b"])
        warmup_step(state, batch, recipe, Passes.of(recipe, torch.device("cpu")))

    return stepped


@pytest.fixture
def trained(begin: Begin, step: Callable[[TrainingState], None]) -> TrainingState:
    state = begin()
    for _ in range(3):
        step(state)
    return state


def assert_same(one: TrainingState, other: TrainingState) -> None:
    for a, b in ((one.student, other.student), (one.averaged, other.averaged)):
        expected, found = a.state_dict(), b.state_dict()
        assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    momenta = [[s.optimizer.state[p]["momentum_buffer"] for p in s.student.parameters() if p.requires_grad]
               for s in (one, other)]  # fmt: skip
    assert len(momenta[0]) == len(momenta[1]) > 20
    assert all(torch.equal(a, b) for a, b in zip(*momenta, strict=True))
    assert torch.equal(one.iteration, other.iteration)


def test_what_is_restored_is_what_was_saved(trained: TrainingState, begin: Begin, tmp_path: Path) -> None:
    path = tmp_path / "last.state.safetensors"
    save_state(path, trained, "adapted", NOTES)
    saved = read_state(path)
    assert (saved.stage, saved.iteration, saved.notes) == ("adapted", 3, NOTES)
    fresh = begin(seed=1)
    restore_state(saved, fresh, path)
    assert_same(trained, fresh)


def test_the_average_is_saved_beside_the_student(trained: TrainingState, tmp_path: Path) -> None:
    save_state(tmp_path / "s", trained, "adapted", Notes(warmup=True))
    tensors = read_state(tmp_path / "s").tensors
    key = "backbone.layer4.0.conv1.weight"
    assert torch.equal(tensors[f"student.{key}"], trained.student.state_dict()[key])
    assert torch.equal(tensors[f"average.{key}"], trained.averaged.state_dict()[key])
    assert not torch.equal(tensors[f"student.{key}"], tensors[f"average.{key}"])


def test_a_restored_stage_goes_on_in_the_same_bits(
    trained: TrainingState, begin: Begin, step: Callable[[TrainingState], None], tmp_path: Path
) -> None:
    save_state(tmp_path / "s", trained, "source_only", Notes(warmup=True))
    fresh = begin(seed=1)
    restore_state(read_state(tmp_path / "s"), fresh, tmp_path / "s")
    for _ in range(2):
        step(trained)
        step(fresh)
    assert_same(trained, fresh)


def test_restoring_leaves_the_file_and_the_read_tensors_alone(
    trained: TrainingState, begin: Begin, step: Callable[[TrainingState], None], tmp_path: Path
) -> None:
    save_state(tmp_path / "s", trained, "source_only", Notes(warmup=True))
    saved = read_state(tmp_path / "s")
    before = {key: value.clone() for key, value in saved.tensors.items()}
    fresh = begin()
    restore_state(saved, fresh, tmp_path / "s")
    step(fresh)
    assert all(torch.equal(value, before[key]) for key, value in saved.tensors.items())


def test_a_stage_that_has_not_begun_has_momenta_of_zero(begin: Begin, tmp_path: Path) -> None:
    save_state(tmp_path / "s", begin(), "source_only", Notes(warmup=True))
    saved = read_state(tmp_path / "s")
    assert saved.iteration == 0
    fresh = begin(seed=1)
    for entry in fresh.optimizer.state.values():
        entry["momentum_buffer"].fill_(1.0)
    restore_state(saved, fresh, tmp_path / "s")
    assert fresh.optimizer.state
    assert not any(entry["momentum_buffer"].any() for entry in fresh.optimizer.state.values())


def test_a_scalers_scale_and_streak_go_on(begin: Begin, tmp_path: Path) -> None:
    state, fresh = begin(), begin()
    for one in (state, fresh):
        one.scaler = torch.amp.GradScaler("cpu", enabled=True)
        one.scaler.scale(torch.zeros(()))
    state.scaler.load_state_dict({**state.scaler.state_dict(), "scale": 512.0, "_growth_tracker": 7})
    save_state(tmp_path / "s", state, "adapted", Notes(warmup=True))
    restore_state(read_state(tmp_path / "s"), fresh, tmp_path / "s")
    assert fresh.scaler.state_dict() == state.scaler.state_dict()
    restore_state(read_state(tmp_path / "s"), begin(), tmp_path / "s")


def test_saving_again_replaces_the_file(
    trained: TrainingState, step: Callable[[TrainingState], None], tmp_path: Path
) -> None:
    save_state(tmp_path / "s", trained, "adapted", Notes(warmup=True))
    step(trained)
    save_state(tmp_path / "s", trained, "adapted", Notes(warmup=True))
    assert read_state(tmp_path / "s").iteration == 4
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_a_missing_checkpoint_says_how_to_start(tmp_path: Path) -> None:
    with pytest.raises(FastudaError, match="none: no checkpoint to resume from"):
        read_state(tmp_path / "none")


@pytest.mark.parametrize("damage", ["cut", "empty", "garbage", "folder"])
def test_a_damaged_checkpoint_is_named(damage: str, trained: TrainingState, tmp_path: Path) -> None:
    path = tmp_path / "last.state.safetensors"
    save_state(path, trained, "adapted", Notes(warmup=True))
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "garbage": b"\x80\x02}" * 40}[damage])
    with pytest.raises(FastudaError, match=r"last\.state\.safetensors: this checkpoint cannot be read, it is damaged"):
        read_state(path)


def test_a_model_is_not_taken_for_a_checkpoint(
    trained: TrainingState, tiny_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    save_model(tmp_path / "model", trained.averaged, tiny_recipe(), {})
    with pytest.raises(FastudaError, match=r"model: not a fastuda training checkpoint \(format 'fastuda-model-2'\)"):
        read_state(tmp_path / "model")


def test_a_later_format_is_not_guessed_at(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "s", {"format": "fastuda-state-9"})
    with pytest.raises(FastudaError, match=r"not a fastuda training checkpoint \(format 'fastuda-state-9'\)"):
        read_state(tmp_path / "s")


def test_a_checkpoint_of_another_network_is_named_with_what_differs(
    trained: TrainingState, begin: Begin, tmp_path: Path
) -> None:
    save_state(tmp_path / "s", trained, "adapted", Notes(warmup=True))
    with pytest.raises(
        FastudaError, match=r"s: this checkpoint is of another network: student\.head\.branches"
    ) as said:
        restore_state(read_state(tmp_path / "s"), begin(num_classes=16), tmp_path / "s")
    assert re.fullmatch(
        r"[^\n;]*weight is \[19, .*\], not \[16, .*\];[^\n;]*bias is \[19\], not \[16\];[^\n;]*; and \d+ more",
        str(said.value),
    )


def test_what_a_checkpoint_lacks_or_has_too_much_is_named(trained: TrainingState, begin: Begin, tmp_path: Path) -> None:
    save_state(tmp_path / "s", trained, "adapted", Notes(warmup=True))
    saved, model = read_state(tmp_path / "s"), begin().student
    require_fit(saved, model, remembered=["momentum_buffer"])
    saved.tensors["student.extra"] = saved.tensors.pop("average.head.branches.0.bias")
    with pytest.raises(FastudaError, match=r"bias is missing, not \[19\]; student.extra is \[19\], not there$"):
        require_fit(saved, model, remembered=["momentum_buffer"])


def test_a_checkpoint_without_momenta_fits_an_optimiser_without(trained: TrainingState, tmp_path: Path) -> None:
    save_state(tmp_path / "s", trained, "adapted", Notes(warmup=True))
    saved = read_state(tmp_path / "s")
    for key in [key for key in saved.tensors if key.startswith("momentum.")]:
        del saved.tensors[key]
    require_fit(saved, trained.student)
    with pytest.raises(FastudaError, match="s: this checkpoint is of another optimiser: it holds no momenta"):
        require_fit(saved, trained.student, remembered=["momentum_buffer"])


def test_failed_samples_whose_names_are_no_utf_8_are_remembered(begin: Begin, tmp_path: Path) -> None:
    notes = Notes(warmup=True, failed={"target": {"stra\udcdfe": "stra\udcdfe.png: damaged"}})
    save_state(tmp_path / "s", begin(), "adapted", notes)
    assert read_state(tmp_path / "s").notes == notes


@pytest.mark.parametrize("notes", ["", "{", "[" * 100_000, "1" * 10_000, '{"warmup": 7}'])
def test_notes_that_are_none_are_refused(notes: str, begin: Begin, tmp_path: Path) -> None:
    snapshot = take_snapshot(begin(), "adapted", 0, Notes(warmup=True))
    write_state(tmp_path / "s", replace(snapshot, header={**snapshot.header, "notes": notes}))
    with pytest.raises(FastudaError, match=r"s: not a checkpoint that a run wrote: notes[^\n]*$"):
        read_state(tmp_path / "s")
