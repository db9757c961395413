"""A sample that fails in flight is named and, where the recipe says so, replaced; all others stay as they are."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastuda.data.loading import evaluation_loader, training_loader
from fastuda.data.loading.batch import DomainBatch
from fastuda.data.loading.evaluation_loader import EvaluationLoader
from fastuda.data.loading.failures import Failures, substitute
from fastuda.data.loading.training_loader import TrainingLoader
from fastuda.data.packing.pack import Packed
from fastuda.errors import FastudaError, UsageError
from fastuda.evaluation.target_statistics import gather_statistics
from fastuda.model.build import build_network
from fastuda.model.passes import Passes
from fastuda.recipe import Recipe

CPU = torch.device("cpu")
WIDTH, HEIGHT = 40, 24
NUM_SAMPLES = 7
NUM_BATCHES = 9
TENSORS = ("view", "view_label", "weak", "strong", "label", "boxes", "class_keys")


@pytest.fixture
def recipe(tiny_recipe: Callable[..., Recipe]) -> Callable[..., Recipe]:
    def build(*settings: str, on_error: str = "skip") -> Recipe:
        size = f"[{WIDTH}, {HEIGHT}]"
        views = [f"views.source_size={size}", f"views.target_size={size}", "views.crop_size=[16, 16]"]
        return tiny_recipe(*views, 'classes.names=["a", "b", "c"]', f"data.on_error={on_error}", *settings)

    return build


@pytest.fixture(params=["png", "jpeg", "raw"])
def packed(request: pytest.FixtureRequest, pack: Callable[..., Packed], recipe: Callable[..., Recipe]) -> Packed:
    rngs = [np.random.default_rng(i) for i in range(NUM_SAMPLES)]
    images = [rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for rng in rngs]
    labels = [rng.integers(0, 3, (HEIGHT, WIDTH), np.uint8) for rng in rngs]
    return pack(recipe(), images, labels, format=request.param)


def batches(loader: TrainingLoader, count: int) -> list[DomainBatch]:
    return [batch.map(Tensor.clone) for batch in islice(loader, count)]


def equal(one: list[DomainBatch], other: list[DomainBatch]) -> bool:
    return [batch.names for batch in one] == [batch.names for batch in other] and all(
        torch.equal(getattr(a, field), getattr(b, field)) for a, b in zip(one, other, strict=True) for field in TENSORS
    )


def lose(packed: Packed, index: int, kind: str = "images") -> Path:
    """Damage a packed file and delete its source; returns the packed file."""
    path = packed.path(index, kind)  # type: ignore[arg-type]
    path.write_bytes(b"x" + path.read_bytes()[1:])
    (packed.folder.parent.parent / "files" / kind / f"{index:03d}.png").unlink()
    return path


def make_undecodable(packed: Packed, index: int, kind: str = "images") -> Path:
    """A file whose checksum and header are right, and whose pixels no decoder takes."""
    path, place = packed.path(index, kind), 0 if kind == "images" else 1  # type: ignore[arg-type]
    content = path.read_bytes()
    if path.suffix == ".png":
        content = content[:41] + bytes(len(content) - 41)
    else:
        scan = content.index(b"\xff\xda")
        content = content[:scan] + bytes(len(content) - scan)
    path.write_bytes(content)
    record = packed.records[index]
    checksums = list(record.packed_checksums)
    checksums[place] = zlib.crc32(content)
    packed.records[index] = replace(record, packed_checksums=checksums)
    return path


def check_replaced(found: list[DomainBatch], before: list[DomainBatch], packed: Packed, failed: set[int]) -> None:
    """Positions whose sample did not fail are bit for bit what they were; the others keep their augmentation."""
    num_replaced = 0
    for batch, wanted in zip(found, before, strict=True):
        assert torch.equal(batch.boxes, wanted.boxes)
        assert torch.equal(batch.class_keys, wanted.class_keys)
        for place, (name, meant) in enumerate(zip(batch.names, wanted.names, strict=True)):
            index = packed.names.index(meant)
            assert name == packed.names[substitute(index, failed, NUM_SAMPLES)]
            if index in failed:
                num_replaced += 1
                continue
            for field in TENSORS:
                assert torch.equal(getattr(batch, field)[place], getattr(wanted, field)[place])
    assert num_replaced >= len(failed)


@pytest.mark.parametrize(
    ("kind", "lost"), [("images", [2]), ("labels", [6]), ("images", [3, 4, 6]), ("labels", [0, 6])]
)
def test_samples_that_are_lost_are_replaced_and_no_other_moves(
    kind: str, lost: list[int], packed: Packed, recipe: Callable[..., Recipe], caplog: pytest.LogCaptureFixture
) -> None:
    before = batches(TrainingLoader(packed, "source", recipe(), CPU), NUM_BATCHES)
    paths = [lose(packed, index, kind) for index in lost]
    loader = TrainingLoader(packed, "source", recipe(), CPU)
    found = batches(loader, NUM_BATCHES)
    check_replaced(found, before, packed, set(lost))
    assert loader.failed == lost
    assert list(loader.failures.reasons) == [packed.names[index] for index in lost]
    assert len(loader.failures) == len(lost)
    for index, path in zip(lost, paths, strict=True):
        lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith(f"sample {packed.names[index]}: ")]
        assert len(lines) == 1
        assert str(path) in lines[0]
        assert f"{packed.names[index]}.png: cannot be read" in lines[0]
        assert "takes its place from now on" in lines[0]
    assert [TrainingLoader.names_at(packed, "source", recipe(), i, loader.failed) for i in range(NUM_BATCHES)] == [
        batch.names for batch in found
    ]


@pytest.mark.parametrize("start", [1, 4, 7])
def test_a_resumed_run_replaces_alike(start: int, packed: Packed, recipe: Callable[..., Recipe]) -> None:
    for index in (1, 2, 5):
        lose(packed, index)
    loader = TrainingLoader(packed, "source", recipe(), CPU)
    head = batches(loader, start)
    failed = loader.failed
    tail = batches(loader, NUM_BATCHES - start)
    resumed = TrainingLoader(packed, "source", recipe(), CPU, start_iteration=start, failed=failed)
    assert equal(batches(resumed, NUM_BATCHES - start), tail)
    assert len(head) == start
    assert resumed.failed == loader.failed


def test_what_failed_before_stays_replaced_though_it_can_be_read_again(
    packed: Packed, recipe: Callable[..., Recipe], caplog: pytest.LogCaptureFixture
) -> None:
    before = batches(TrainingLoader(packed, "source", recipe(), CPU), NUM_BATCHES)
    loader = TrainingLoader(packed, "source", recipe(), CPU, failed=[2, 3])
    check_replaced(batches(loader, NUM_BATCHES), before, packed, {2, 3})
    assert loader.failed == [2, 3]
    assert not caplog.records
    with pytest.raises(ValueError, match="numbered from 0 to 6"):
        TrainingLoader(packed, "source", recipe(), CPU, failed=[7])


@pytest.mark.parametrize("packed", ["png", "jpeg"], indirect=True)  # raw pixels are not decoded
@pytest.mark.parametrize("kind", ["images", "labels"])
@pytest.mark.parametrize("start", [0, 3])
def test_what_dali_cannot_decode_is_found_named_and_replaced(
    kind: str, start: int, packed: Packed, recipe: Callable[..., Recipe], caplog: pytest.LogCaptureFixture
) -> None:
    before = batches(TrainingLoader(packed, "source", recipe(), CPU, start_iteration=start), NUM_BATCHES)
    paths = [make_undecodable(packed, index, kind) for index in (1, 4)]
    loader = TrainingLoader(packed, "source", recipe(), CPU, start_iteration=start)
    check_replaced(batches(loader, NUM_BATCHES), before, packed, {1, 4})
    assert loader.failed == [1, 4]
    for path in paths:
        assert caplog.text.count(f"{path}: cannot be decoded (") == 1
    stopped = TrainingLoader(packed, "source", recipe(on_error="stop"), CPU)
    with pytest.raises(
        FastudaError, match=rf"^sample 00[14]: ({'|'.join(map(str, paths))}): cannot be decoded \([^\n]*$"
    ):
        batches(stopped, NUM_BATCHES)


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_by_default_a_lost_sample_stops_the_run_in_one_line(
    kind: str, packed: Packed, tiny_recipe: Callable[..., Recipe], recipe: Callable[..., Recipe]
) -> None:
    assert (tiny_recipe().data.on_error, tiny_recipe().data.max_failed) == ("stop", 10)
    path = lose(packed, 3, kind)
    with pytest.raises(FastudaError) as raised:
        batches(TrainingLoader(packed, "source", recipe(on_error="stop"), CPU), NUM_BATCHES)
    message = str(raised.value)
    assert message.startswith(f"sample 003: {path}: damaged since it was packed")
    assert message.endswith("--set data.on_error=skip")
    assert "\n" not in message


@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_too_many_failures_stop_the_run(allowed: int, packed: Packed, recipe: Callable[..., Recipe]) -> None:
    for index in range(3):
        lose(packed, index)
    loader = TrainingLoader(packed, "source", recipe(f"data.max_failed={allowed}"), CPU)
    with pytest.raises(
        FastudaError, match=rf"^{allowed + 1} samples? failed .*max_failed allows {allowed} .*max_failed=N"
    ):
        batches(loader, NUM_BATCHES)
    with pytest.raises(FastudaError, match=r"^3 samples failed"):
        TrainingLoader(packed, "source", recipe(f"data.max_failed={allowed}"), CPU, failed=[0, 1, 2])


def test_a_pack_of_which_every_sample_fails_stops_the_run(packed: Packed, recipe: Callable[..., Recipe]) -> None:
    for index in range(NUM_SAMPLES):
        lose(packed, index)
    with pytest.raises(FastudaError, match=r"^7 samples failed while they were read, and all there are \("):
        batches(TrainingLoader(packed, "source", recipe(), CPU), NUM_BATCHES)


def test_ranks_that_meet_a_failure_at_different_times_replace_alike(
    packed: Packed, recipe: Callable[..., Recipe]
) -> None:
    for index in (2, 3):
        lose(packed, index)
    alone = batches(TrainingLoader(packed, "source", recipe("train.batch_size=4"), CPU), 5)
    ranks = [batches(TrainingLoader(packed, "source", recipe(), CPU, rank=rank, num_ranks=2), 5) for rank in (0, 1)]
    for whole, first, second in zip(alone, *ranks, strict=True):
        assert whole.names == first.names + second.names
        assert torch.equal(whole.weak, torch.cat([first.weak, second.weak]))


@pytest.mark.parametrize("loader", ["training", "evaluation"])
def test_an_error_that_no_sample_explains_is_passed_on(
    loader: str, packed: Packed, recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> list[Tensor]:
        raise RuntimeError("the device is gone")

    module = training_loader if loader == "training" else evaluation_loader
    monkeypatch.setattr(module, "run_pipeline", broken)
    training, evaluation = TrainingLoader(packed, "source", recipe(), CPU), EvaluationLoader(packed, 2, 1, CPU)
    with pytest.raises(RuntimeError, match="the device is gone"):
        next(training if loader == "training" else iter(evaluation))


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_an_evaluation_never_leaves_a_sample_out(kind: str, packed: Packed) -> None:
    path = lose(packed, 4, kind)
    with pytest.raises(FastudaError, match=rf"^sample 004, which is to be evaluated: {path}: damaged [^\n]*$"):
        list(EvaluationLoader(packed, 2, 1, CPU))


def test_an_evaluation_names_what_cannot_be_decoded(packed: Packed, recipe: Callable[..., Recipe]) -> None:
    if packed.format != "raw":
        path = make_undecodable(packed, 4)
        with pytest.raises(FastudaError, match=rf"^sample 004, which is to be evaluated: {path}: cannot be decoded \("):
            list(EvaluationLoader(packed, 2, 1, CPU))
        label = make_undecodable(packed, 0, "labels")
        with pytest.raises(
            FastudaError, match=rf"^sample 000, which is to be evaluated: {label}: cannot be decoded \("
        ):
            list(EvaluationLoader(packed, 2, 1, CPU))
    with pytest.raises(ValueError, match="nothing may stand for them"):
        EvaluationLoader(packed, 2, 1, CPU, failures=Failures(packed, recipe().data))


def test_statistics_are_gathered_without_the_samples_that_failed(
    packed: Packed, recipe: Callable[..., Recipe], caplog: pytest.LogCaptureFixture
) -> None:
    images = {name: i for i, name in enumerate(packed.names)}
    lose(packed, 2)
    if packed.format != "raw":
        make_undecodable(packed, 5)
    failed = [2] if packed.format == "raw" else [2, 5]
    failures = Failures(packed, recipe().data)
    found = list(EvaluationLoader(packed, 2, 1, CPU, labelled=False, failures=failures))
    names = [name for batch in found for name in batch.names]
    assert names == [packed.names[substitute(i, failed, NUM_SAMPLES)] for i in range(NUM_SAMPLES)]
    assert failures.indices == failed
    pixels = torch.cat([batch.images for batch in found])
    assert all(torch.equal(pixels[images[name]], pixels[i]) for i, name in enumerate(names))

    torch.manual_seed(0)
    model, small = build_network(recipe()), recipe()
    passes = Passes.of(small, CPU)
    gather_statistics(model, packed, small, passes, CPU)
    fresh = {name: buffer.clone() for name, buffer in model.named_buffers()}
    gather_statistics(model, packed, small, passes, CPU, failed=failed)
    assert all(torch.equal(buffer, fresh[name]) for name, buffer in model.named_buffers())
    assert [record for record in caplog.records if record.levelno >= logging.WARNING]
    with pytest.raises(FastudaError, match=r"^sample 002: "):
        gather_statistics(model, packed, recipe(on_error="stop"), passes, CPU)


@pytest.mark.parametrize(
    ("index", "failed", "expected"),
    [(0, [], 0), (3, [3], 4), (3, [3, 4, 5], 6), (6, [6], 0), (5, [5, 6, 0, 1], 2), (2, [3], 2)],
)
def test_the_next_sample_that_has_not_failed_stands_for_one_that_has(
    index: int, failed: list[int], expected: int
) -> None:
    assert substitute(index, failed, NUM_SAMPLES) == expected
    assert substitute(index, list(reversed(failed)), NUM_SAMPLES) == expected


def test_recipes_that_say_something_else_are_refused(recipe: Callable[..., Recipe]) -> None:
    for setting in ("data.on_error=ignore", "data.max_failed=-1", "data.max_failed=1.5"):
        with pytest.raises(UsageError, match=setting.partition("=")[0]):
            recipe(setting)
    with pytest.raises(ValueError, match="all 2 samples have failed"):
        substitute(0, [0, 1], 2)
