"""Packs in shards: the same samples, bit for bit, read from a few large files, whatever becomes of those."""

from __future__ import annotations

import logging
import tarfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastuda.data.loading.batch import DomainBatch
from fastuda.data.loading.training_loader import TrainingLoader
from fastuda.data.packing import sharded, shards
from fastuda.data.packing.joined import Joined
from fastuda.data.packing.pack import Packed
from fastuda.data.packing.sharded import Sharded
from fastuda.errors import FastudaError
from fastuda.recipe import Recipe

CPU = torch.device("cpu")
WIDTH, HEIGHT, NUM_SAMPLES = 40, 24, 23
SMALL = 0.02
"""MiB: five or six of these samples."""
TENSORS = ("view", "view_label", "weak", "strong", "label", "boxes", "class_keys")


@pytest.fixture
def recipe(tiny_recipe: Callable[..., Recipe]) -> Callable[..., Recipe]:
    def build(*settings: str) -> Recipe:
        size = f"[{WIDTH}, {HEIGHT}]"
        views = [f"views.source_size={size}", f"views.target_size={size}", "views.crop_size=[16, 16]"]
        return tiny_recipe(*views, 'classes.names=["a", "b", "c"]', *settings)

    return build


@pytest.fixture
def make(pack: Callable[..., Packed], recipe: Callable[..., Recipe]) -> Callable[..., Packed]:
    def made(format: str = "png", seed: int = 0, **data: Any) -> Packed:
        rngs = [np.random.default_rng((seed, i)) for i in range(NUM_SAMPLES)]
        images = [rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for rng in rngs]
        labels = [rng.integers(0, 3, (HEIGHT, WIDTH), np.uint8) for rng in rngs]
        return pack(recipe(), images, labels, format=format, **data)

    return made


def in_shards(make: Callable[..., Packed], mixed: int = 2, **more: Any) -> Sharded:
    packed = make(shard_mb=SMALL, shards_mixed=mixed, **more)
    assert isinstance(packed, Sharded)
    assert len(packed.layout.members) >= 4
    return packed


def batches(packed: Packed, recipe: Recipe, count: int, **options: Any) -> list[DomainBatch]:
    return [
        batch.map(Tensor.clone) for batch in islice(TrainingLoader(packed, "source", recipe, CPU, **options), count)
    ]


def equal(one: list[DomainBatch], other: list[DomainBatch]) -> bool:
    return [batch.names for batch in one] == [batch.names for batch in other] and all(
        torch.equal(getattr(a, field), getattr(b, field)) for a, b in zip(one, other, strict=True) for field in TENSORS
    )


@pytest.mark.parametrize("format", ["png", "jpeg", "raw"])
def test_shards_hold_the_packs_own_bytes_and_any_tar_reads_them(format: str, make: Callable[..., Packed]) -> None:
    packed, single = in_shards(make, format=format), make(format=format)
    assert type(single) is Packed
    for index in range(NUM_SAMPLES):
        assert np.array_equal(packed.image_bytes(index), single.image_bytes(index))
        assert np.array_equal(packed.label_bytes(index), single.label_bytes(index))
    found = {}
    for shard in range(len(packed.layout.members)):
        assert packed.layout.path(shard).stat().st_size == packed.layout.sizes[shard]
        with tarfile.open(packed.layout.path(shard)) as tar:
            for member in tar.getmembers():
                content = tar.extractfile(member)
                assert content is not None
                found[member.name] = content.read()
    suffix = {"png": "png", "jpeg": "jpg", "raw": "raw"}[format]
    label = "raw" if format == "raw" else "png"
    for index in range(NUM_SAMPLES):
        assert found[f"{index:07d}.{suffix}"] == single.image_bytes(index).tobytes()
        assert found[f"{index:07d}.label.{label}"] == single.label_bytes(index).tobytes()
    assert len(found) == 2 * NUM_SAMPLES


def test_each_shard_is_read_once_an_epoch_and_few_are_held(
    make: Callable[..., Packed], recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, read = in_shards(make, mixed=1), list[str]()
    reads = sharded._from_beginning_to_end
    monkeypatch.setattr(sharded, "_from_beginning_to_end", lambda path: (read.append(path.name), reads(path))[1])
    schedule = TrainingLoader(packed, "source", recipe("train.batch_size=1"), CPU).schedule
    packed.reader.close()
    packed = Sharded.of(packed, packed.layout, packed.mixed)
    read.clear()
    most = 0
    for iteration in range(NUM_SAMPLES):
        packed.read_ahead(schedule.soon(iteration))
        packed.image_bytes(*schedule.samples(iteration))
        packed.label_bytes(*schedule.samples(iteration))
        most = max(most, len(packed.reader._held))
    in_epoch = read[: len(packed.layout.members)]
    assert sorted(in_epoch) == [f"{i:05d}.tar" for i in range(len(packed.layout.members))]
    assert len(read) <= len(packed.layout.members) + 1  # the next epoch's first is read ahead
    assert most == 2


@pytest.mark.parametrize("start", [1, 5, 12, 30])
def test_a_loader_that_starts_later_goes_on_exactly(
    start: int, make: Callable[..., Packed], recipe: Callable[..., Recipe]
) -> None:
    packed = in_shards(make)
    whole = batches(packed, recipe(), start + 6)
    assert equal(batches(packed, recipe(), 6, start_iteration=start), whole[start:])
    fresh = Sharded.of(packed, packed.layout, packed.mixed)
    assert equal(batches(fresh, recipe(), 6, start_iteration=start), whole[start:])


def test_samples_come_shard_by_shard_and_every_one_once_an_epoch(
    make: Callable[..., Packed], recipe: Callable[..., Recipe]
) -> None:
    packed = in_shards(make, mixed=2)
    schedule = TrainingLoader(packed, "source", recipe("train.batch_size=1"), CPU).schedule
    of_sample = {int(s): shard for shard, members in enumerate(packed.layout.members) for s in members}
    epochs = [[schedule.samples(e * NUM_SAMPLES + i)[0] for i in range(NUM_SAMPLES)] for e in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(NUM_SAMPLES))
        seen, place = set[int](), 0
        while place < NUM_SAMPLES:  # pools of two shards, one after another
            pool = {of_sample[epoch[place]]}
            while place < NUM_SAMPLES and (of_sample[epoch[place]] in pool or len(pool) < 2):
                pool.add(of_sample[epoch[place]])
                place += 1
            assert not pool & seen
            seen |= pool
    assert len({tuple(epoch) for epoch in epochs}) == 3
    # A shard is of all of the data, not of neighbours.
    assert all(np.ptp(members) > NUM_SAMPLES / 3 for members in packed.layout.members[:-1])


@pytest.mark.parametrize("what", ["gone", "short", "other bytes", "a folder"])
def test_a_shard_that_is_not_what_was_written_costs_a_warning_and_nothing_else(
    what: str, make: Callable[..., Packed], recipe: Callable[..., Recipe], caplog: pytest.LogCaptureFixture
) -> None:
    packed = in_shards(make)
    before = batches(packed, recipe(), 14)
    path = packed.layout.path(1)
    content = path.read_bytes()
    path.unlink()
    if what == "short":
        path.write_bytes(content[:700])
    elif what == "other bytes":
        path.write_bytes(content[:700] + bytes(200) + content[900:])
    elif what == "a folder":
        path.mkdir()
    damaged = Sharded.of(packed, packed.layout, packed.mixed)
    assert equal(batches(damaged, recipe(), 14), before)
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len([line for line in said if line.startswith(f"{path}: ")]) == 1
    assert "its samples are read from single files" in "".join(said)


def test_a_shard_that_is_missing_is_written_anew_and_others_stay(make: Callable[..., Packed]) -> None:
    packed = in_shards(make)
    times = {path: path.stat().st_mtime_ns for path in packed.layout.folder.glob("*.tar")}
    gone, short, *kept = sorted(times)
    content = gone.read_bytes()
    gone.unlink()
    short.write_bytes(b"half")
    again = in_shards(make)
    assert again.layout.missing() == []
    assert gone.read_bytes() == content
    assert [path for path in kept if path.stat().st_mtime_ns != times[path]] == []


def test_a_call_that_is_killed_while_it_lays_out_is_gone_on_with(
    make: Callable[..., Packed], monkeypatch: pytest.MonkeyPatch
) -> None:
    writes, written = shards.write_atomic, list[Path]()

    def killed(path: Path, content: bytes, **options: Any) -> None:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        writes(path, content, **options)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_atomic", killed)
        with pytest.raises(KeyboardInterrupt):
            in_shards(make)
    times = {path: path.stat().st_mtime_ns for path in written}
    assert len(times) == 3
    packed = in_shards(make)
    assert packed.layout.missing() == []
    assert [path for path, time in times.items() if path.stat().st_mtime_ns != time] == []


def test_data_that_changed_is_laid_out_anew(make: Callable[..., Packed]) -> None:
    packed = in_shards(make)
    before = packed.layout.path(0).read_bytes()
    changed = in_shards(make, seed=1)
    assert changed.layout.folder == packed.layout.folder
    assert changed.layout.path(0).read_bytes() != before
    assert np.array_equal(changed.image_bytes(3), changed.single_files().image_bytes(3))


def test_where_nothing_can_be_written_whole_shards_are_read_and_others_refused(
    make: Callable[..., Packed], monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = in_shards(make)
    allowed = shards.os.access
    monkeypatch.setattr(shards.os, "access", lambda path, mode: mode != shards.os.W_OK and allowed(path, mode))
    assert in_shards(make).layout.missing() == []
    packed.layout.path(0).unlink()
    with pytest.raises(
        FastudaError, match=r"shards-0.02: 1 of \d+ shards are missing, and the folder cannot be written"
    ):
        in_shards(make)


def test_few_labels_are_read_from_shards_of_their_own(
    make: Callable[..., Packed], recipe: Callable[..., Recipe]
) -> None:
    first = in_shards(make)
    joined = Joined.of(first, Sharded.of(first, first.layout, 1))
    loader = TrainingLoader(joined, "source", recipe(), CPU)
    seen = [name for batch in islice(loader, NUM_SAMPLES) for name in batch.names]
    assert sorted(seen[0::2]) == sorted(first.names)
    assert sorted(seen[1::2]) == sorted(f"target: {name}" for name in first.names)
    plain = TrainingLoader(Joined.of(first.single_files(), first.single_files()), "source", recipe(), CPU)
    assert seen != [name for batch in islice(plain, NUM_SAMPLES) for name in batch.names]


def test_classes_are_drawn_from_single_files(make: Callable[..., Packed], recipe: Callable[..., Recipe]) -> None:
    rare = recipe("sampling.rare_classes=true", "sampling.min_pixels=1", "sampling.min_crop_pixels=0")
    packed = in_shards(make)
    assert equal(batches(packed, rare, 4), batches(packed.single_files(), rare, 4))
    assert not packed.reader._held
