"""Few labels of the target (`target.labelled`): who is read, how often, at which size, and that nobody else's is."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from pair_runs import make_folders, model, opened, packed, same, settings
from whole_runs import run, run_killed, saved_state

from fastuda.data.loading.sampling import Schedule
from fastuda.data.loading.training_loader import TrainingLoader
from fastuda.data.packing.joined import MARK, Joined
from fastuda.errors import FastudaError, UsageError
from fastuda.recipe import Recipe
from fastuda.recipe.file import load_recipe
from fastuda.recipe.warmup import warmup_fields

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source of 5 pairs, a target of 4 training pairs and 2 evaluation pairs, and a list of two of the four."""
    root = make_folders(tmp_path_factory.mktemp("few"))
    (root / "few.txt").write_text("t1\nt3.png  # the second\n")
    return root


@pytest.fixture
def recipe(folders: Path, tmp_path: Path) -> Callable[..., Recipe]:
    def made(*more: str, labels: bool = True, variants: tuple[str, ...] = ()) -> Recipe:
        few = f"target.labelled={folders / 'few.txt'}"
        return load_recipe(
            "gta2cs", settings(folders, tmp_path / "cache", few, *more, labels=labels), layers=[(variants, ())]
        )

    return made


def test_they_join_the_source_at_its_size_in_both_stages(recipe: Callable[..., Recipe]) -> None:
    data = packed(recipe())
    assert data.labelled_target is not None
    assert data.labelled_target.names == ["t1", "t3"]
    assert data.labelled_target.size == data.source.size == (96, 32)
    for adapts in (False, True):
        split, joined = data.trained_on(adapts=adapts)["source"]
        assert (split, len(joined)) == ("source", 7)
        assert joined.names == [*data.source.names, f"{MARK}t1", f"{MARK}t3"]
    assert data.trained_on(adapts=True)["target"] == ("target", data.target)
    assert len(data.target) == 4  # the labelled ones are still images to adapt to


def test_every_second_image_is_one_of_theirs_and_both_have_epochs(recipe: Callable[..., Recipe]) -> None:
    mine = recipe()
    _, joined = packed(mine).trained_on(adapts=True)["source"]
    names = [name for batch in islice(TrainingLoader(joined, "source", mine, CPU), 10) for name in batch.names]
    assert [name.startswith(MARK) for name in names] == [False, True] * 10
    source, target = names[::2], names[1::2]
    assert [sorted(source[i : i + 5]) for i in (0, 5)] == [[f"s{i}" for i in range(5)]] * 2
    assert all(sorted(target[i : i + 2]) == [f"{MARK}t1", f"{MARK}t3"] for i in range(0, 10, 2))
    assert names == [name for i in range(10) for name in TrainingLoader.names_at(joined, "source", mine, i)]


def test_without_joined_samples_the_order_is_what_it_was() -> None:
    plain, joined = Schedule(5, 2, 3, "source"), Schedule(5, 2, 3, "source", num_joined=4)
    order = [sample for i in range(20) for sample in plain.samples(i)]
    of_source = [sample for i in range(20) for sample in joined.samples(i) if sample < 5]
    assert of_source == order[:20]
    theirs = [sample for i in range(20) for sample in joined.samples(i) if sample >= 5]
    assert all(sorted(theirs[i : i + 4]) == [5, 6, 7, 8] for i in range(0, 20, 4))


def test_pictures_and_labels_are_each_packs_own(recipe: Callable[..., Recipe]) -> None:
    data = packed(recipe())
    assert data.labelled_target is not None
    joined = Joined.of(data.source, data.labelled_target)
    for place, (own, index) in enumerate(
        [*((data.source, i) for i in range(5)), *((data.labelled_target, i) for i in (0, 1))]
    ):
        assert np.array_equal(joined.image_bytes(place), own.image_bytes(index))
        assert np.array_equal(joined.label_array(place), own.label_array(index))
        assert joined.path(place, "labels") == own.path(index, "labels")
    assert joined.label_pixels().shape[0] == 7


def test_packs_of_different_sizes_do_not_join(recipe: Callable[..., Recipe]) -> None:
    data = packed(recipe())
    with pytest.raises(ValueError, match="differ in the size"):
        Joined.of(data.source, data.target)


def test_only_the_listed_labels_are_opened(recipe: Callable[..., Recipe]) -> None:
    with opened("train-labels") as seen:
        packed(recipe())
    assert {Path(path).name for path in seen} == {"t1.png", "t3.png"}


def test_they_change_what_is_learnt_and_a_killed_run_goes_on_in_the_same_bits(
    recipe: Callable[..., Recipe], folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = recipe()
    results, _ = run(mine, tmp_path / "whole")
    assert set(results["data"]) == {"source", "target", "evaluation", "labelled_target"}
    run_killed(mine, tmp_path / "killed", monkeypatch)
    expected, found = saved_state(tmp_path / "whole"), saved_state(tmp_path / "killed")
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    without = load_recipe("gta2cs", settings(folders, tmp_path / "cache"))
    run(without, tmp_path / "without")
    for stage in ("source_only", "adapted"):
        assert not same(model(tmp_path / "whole", stage), model(tmp_path / "without", stage))


def test_another_list_is_another_run(recipe: Callable[..., Recipe], folders: Path, tmp_path: Path) -> None:
    run(recipe(), tmp_path / "run")
    (folders / "others.txt").write_text("t0\nt2\n")
    with pytest.raises((UsageError, FastudaError), match=r"target\.labelled"):
        run(recipe(f"target.labelled={folders / 'others.txt'}"), tmp_path / "run", resume=True)
    listed = (folders / "few.txt").read_text()
    try:
        (folders / "few.txt").write_text("t0\nt2\n")
        with pytest.raises(FastudaError, match="labelled_target"):
            run(recipe(), tmp_path / "run", resume=True)
    finally:
        (folders / "few.txt").write_text(listed)


def test_the_oracle_learns_those_alone(recipe: Callable[..., Recipe]) -> None:
    oracle = recipe(variants=("oracle",))
    data = packed(oracle)
    split, pack = data.trained_on(adapts=True)["source"]
    assert (split, pack.names, pack.size) == ("labelled_target", ["t1", "t3"], (64, 32))
    assert data.trained_on(adapts=False)["source"] == ("source", data.source)


def test_a_failed_sample_is_named_and_replaced(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    mine = recipe("data.on_error=skip")
    data = packed(mine)
    assert data.labelled_target is not None
    joined = Joined.of(data.source, data.labelled_target)
    data.labelled_target.mend = None
    joined.path(5, "images").write_bytes(b"no picture")
    loader = TrainingLoader(joined, "source", mine, CPU)
    names = [name for batch in islice(loader, 4) for name in batch.names]
    assert list(loader.failures.reasons) == [f"{MARK}t1"]
    assert names[1::2] == [f"{MARK}t3"] * 4


def test_a_warm_up_depends_on_the_list(recipe: Callable[..., Recipe], folders: Path, tmp_path: Path) -> None:
    without = load_recipe("gta2cs", settings(folders, tmp_path / "cache"))
    assert warmup_fields(recipe()) != warmup_fields(without)


def test_what_cannot_be_is_refused(recipe: Callable[..., Recipe], folders: Path) -> None:
    with pytest.raises(UsageError, match=r"target\.labelled needs labels of the target's training images: layout"):
        recipe(labels=False)
    with pytest.raises(UsageError, match=r"source\.labelled: all of the source is labelled"):
        recipe(f"source.labelled={folders / 'few.txt'}")
    (folders / "wrong.txt").write_text("t9\n")
    with pytest.raises(FastudaError, match=r"wrong\.txt: lists 't9', and no image has this name"):
        packed(recipe(f"target.labelled={folders / 'wrong.txt'}"))
