"""The ceiling: L_s on the target's own training labels, which no other run ever opens."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pair_runs import SIZE, make_folders, make_pair, model, opened, packed, same, settings
from PIL import Image
from rich.console import Console
from whole_runs import run, run_killed

import fastuda
from fastuda.data.loading.training_loader import TrainingLoader
from fastuda.errors import FastudaError, UsageError
from fastuda.method.state import TrainingState
from fastuda.model.build import build_network
from fastuda.model.passes import Passes
from fastuda.recipe import Recipe
from fastuda.recipe.file import load_recipe
from fastuda.report.display import Display
from fastuda.report.tables import packed_table
from fastuda.runs.checkpoint.notes import Notes
from fastuda.runs.identity import Identity
from fastuda.runtime.fast_path import FastPath
from fastuda.study.conduct import conduct, failures
from fastuda.study.plan import Plan, plan_study
from fastuda.study.table import Row, Table, load_table
from fastuda.training.loop import Loop


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source of 5 pairs, a target of 4 training pairs and 2 evaluation pairs."""
    return make_folders(tmp_path_factory.mktemp("data"))


@pytest.fixture
def recipe(folders: Path, cache: Path) -> Callable[..., Recipe]:
    def made(name: str = "gta2cs+oracle", *more: str, labels: bool = True) -> Recipe:
        base, *variants = name.split("+")
        return load_recipe(base, settings(folders, cache, *more, labels=labels), layers=[(variants, ())])

    return made


def test_the_source_of_an_oracles_adaptation_are_the_targets_labelled_images(recipe: Callable[..., Recipe]) -> None:
    data = packed(recipe())
    assert data.labelled_target is not None
    assert data.labelled_target.size == SIZE
    assert data.trained_on(adapts=True)["source"] == ("labelled_target", data.labelled_target)
    assert data.trained_on(adapts=True)["target"] == ("target", data.target)
    assert data.trained_on(adapts=False) == {"source": ("source", data.source)}
    still = recipe("gta2cs+oracle", "views.flip=0", "views.blur=0")
    batch = next(TrainingLoader(data.labelled_target, "source", still, torch.device("cpu")))
    assert batch.view is not None
    assert batch.view_label is not None
    assert set(batch.names) <= {"t0", "t1", "t2", "t3"}
    for i, name in enumerate(batch.names):
        root = recipe().target.root
        assert root is not None
        for found, folder in ((batch.view, "train"), (batch.view_label, "train-labels")):
            assert np.array_equal(found[i].numpy(), np.asarray(Image.open(root / folder / f"{name}.png")))


def test_the_unlabelled_pack_and_its_fingerprint_are_those_of_every_other_run(recipe: Callable[..., Recipe]) -> None:
    plain, oracle = packed(recipe("gta2cs")), packed(recipe())
    assert (plain.target.folder, plain.target.fingerprint) == (oracle.target.folder, oracle.target.fingerprint)
    assert oracle.labelled_target is not None
    assert oracle.labelled_target.folder != oracle.target.folder
    assert plain.labelled_target is None
    assert plain.fingerprints() == {name: oracle.fingerprints()[name] for name in ("source", "target", "evaluation")}
    assert oracle.fingerprints()["labelled_target"] == oracle.labelled_target.fingerprint


def test_no_other_run_opens_the_targets_training_labels(
    recipe: Callable[..., Recipe], folders: Path, tmp_path: Path
) -> None:
    for name in ("gta2cs", "gta2cs+control", "gta2cs+statistics", "gta2cs+oracle+source-only"):
        with opened("train-labels") as seen:
            run(recipe(name, f"data.cache={tmp_path / 'cache'}", "train.iterations=1"), tmp_path / name)
        assert seen == [], name
    with opened("train-labels") as seen:
        packed(recipe("gta2cs+oracle", f"data.cache={tmp_path / 'cache'}"))
    assert {Path(path).name for path in seen} == {f"t{i}.png" for i in range(4)}


def test_a_label_that_is_none_ends_the_oracle_alone(
    folders: Path, cache: Path, tmp_path: Path, recipe: Callable[..., Recipe]
) -> None:
    for name in ("source", "target"):
        for path in (folders / name).rglob("*.png"):
            copy = tmp_path / path.relative_to(folders)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes() if "train-labels" not in str(path) else b"no picture")
    roots = [f"source.root={tmp_path / 'source'}", f"target.root={tmp_path / 'target'}"]
    packed(recipe("gta2cs", *roots))
    with pytest.raises(FastudaError, match=r"train-labels/t\d\.png"):
        packed(recipe("gta2cs+oracle", *roots))


def test_labels_that_are_not_there_are_missed_by_name(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    with pytest.raises(FastudaError, match=r"no file matches `labels` = 'nowhere/\*\.png'"):
        packed(recipe("gta2cs+oracle", "target.labels=nowhere/*.png"))
    for name in ("a", "b"):
        make_pair(tmp_path / f"leftImg8bit/train/{name}/{name}_1_leftImg8bit.png", tmp_path / f"unused/{name}.png", 1)
    known = ["target={layout='cityscapes'}", f"target.root={tmp_path}"]
    with pytest.raises(FastudaError, match=r"gtFine/train: no such folder.*layout cityscapes expects"):
        packed(recipe("gta2cs+oracle", *known))


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (("mix.enabled=true",), r'train\.labels = "target" .* needs parts = \[\], and on are mix'),
        (("parts=['htcm', 'mix']",), r"needs parts = \[\], and on are mix, htcm"),
        (
            ("target={layout='dark-zurich'}",),
            r"needs labels of .*: Dark Zurich comes without labels of its split train",
        ),
        (("target={layout='cityscapes', split='test'}",), r"Cityscapes comes without labels of its split test"),
        (
            ("target={layout='folder', images='*.png'}",),
            r'layout "folder" has them where `labels` is a glob of their files',
        ),
    ],
)
def test_an_oracle_that_cannot_be_is_refused(more: tuple[str, ...], part: str) -> None:
    with pytest.raises(UsageError, match=part):
        load_recipe("gta2cs+oracle", more)


@pytest.mark.parametrize("layout", ["cityscapes", "acdc", "bdd100k", "mapillary", "idd", "gta5"])
def test_layouts_with_training_labels_need_not_be_told_where_they_are(layout: str) -> None:
    assert load_recipe("gta2cs+oracle", [f"target={{layout='{layout}'}}"]).trains_on_target_labels


def test_an_oracle_starts_from_the_warm_up_of_all_others_and_ends_elsewhere_than_the_control(
    recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    oracle, _ = run(recipe(), tmp_path / "oracle")
    control, _ = run(recipe("gta2cs+control"), tmp_path / "control")
    assert same(model(tmp_path / "oracle", "source_only"), model(tmp_path / "control", "source_only"))
    assert not same(model(tmp_path / "oracle", "adapted"), model(tmp_path / "control", "adapted"))
    assert oracle["data"].keys() - control["data"].keys() == {"labelled_target"}
    assert oracle["left_out"]["labelled_target"]["without_label"] == 0


def test_a_setting_may_name_the_labels_that_the_recipe_does_not(folders: Path, cache: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('base = "gta2cs"\ntarget = {layout = "folder", images = "train/*.png"}\n')
    with pytest.raises(UsageError, match="needs labels of the target's training images"):
        load_recipe(f"{own}+oracle")
    chosen = settings(folders, cache, "warmup.iterations=1", "train.iterations=1")
    results = fastuda.train(f"{own}+oracle", tmp_path / "run", settings=chosen, device="cpu", display=False)
    assert "labelled_target" in results["data"]
    own.write_text(own.read_text().replace("train", "elsewhere"))
    again = functools.partial(fastuda.train, f"{own}+oracle", tmp_path / "run", resume=True, device="cpu")
    with pytest.raises(FastudaError, match="own\\+oracle has changed since"):
        again(settings=[one for one in chosen if "images=train" not in one])
    own.unlink()
    with pytest.raises(UsageError, match=r"own\.toml: cannot read this recipe"):
        again(settings=chosen)


def test_a_killed_oracle_goes_on_to_the_same_bits(
    recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(recipe(), tmp_path / "whole")
    run_killed(recipe(), tmp_path / "run", monkeypatch)
    assert same(model(tmp_path / "run", "adapted"), model(tmp_path / "whole", "adapted"))


def test_a_sample_that_fails_is_kept_by_its_split(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    skipping = recipe("gta2cs+oracle", "data.on_error=skip", f"data.cache={tmp_path / 'cache'}")
    data, device = packed(skipping), torch.device("cpu")
    assert data.labelled_target is not None
    data.labelled_target.mend = None
    data.labelled_target.path(1, "labels").unlink()
    fast, passes = FastPath.of(skipping.runtime, device), Passes.of(skipping, device)
    state = TrainingState.begin(build_network(skipping), skipping.train.optimizer, 6, 0.9)
    loop = Loop(state, data, skipping, passes, fast, "adaptation", failed={"source": {"t0": "of the warm-up"}})
    for _ in range(3):
        loop()
    assert {split: list(reasons) for split, reasons in loop.failed.items()} == {"labelled_target": ["t1"], "target": []}
    notes = Notes(warmup=True)
    notes.add_failed(loop.failed)
    assert Notes.model_validate(notes.model_dump()).failed["labelled_target"].keys() == {"t1"}


def test_labelled_data_that_changed_is_told(recipe: Callable[..., Recipe]) -> None:
    oracle, plain = packed(recipe()), packed(recipe("gta2cs+control"))
    identity = Identity.of("x", None, recipe(), recipe(), oracle)
    assert identity.data_differences(oracle) == []
    (line,) = identity.data_differences(plain)
    assert line.startswith("labelled_target data: the run has 4 samples, here are 0: 4 gone")
    (line,) = Identity.of("x", None, recipe(), recipe(), plain).data_differences(oracle)
    assert line.startswith("labelled_target data: the run has 0 samples, here are 4: 4 new")


def test_the_packed_splits_are_listed(recipe: Callable[..., Recipe], console_text: Callable[[Any], str]) -> None:
    assert "labelled target" in console_text(packed_table(packed(recipe())))
    assert "labelled target" not in console_text(packed_table(packed(recipe("gta2cs"))))


def summary(folders: Path, cache: Path, path: Path, *, labels: bool) -> Plan:
    return plan_study(load_table("summary"), "gta2cs", (0,), settings(folders, cache, labels=labels), path)


def test_the_summary_has_an_oracle_where_the_recipe_names_labels(folders: Path, cache: Path, tmp_path: Path) -> None:
    plan = summary(folders, cache, tmp_path, labels=True)
    assert plan.left_out == {}
    (reading,) = plan.of_row["oracle"]
    assert (reading.stage, reading.cell.warmup) == ("adapted", plan.cells[0])
    assert sum(cell.row == "warm-up" for cell in plan.cells) == 1


def test_without_labels_the_oracle_is_left_out_with_a_note(folders: Path, cache: Path, tmp_path: Path) -> None:
    plan = summary(folders, cache, tmp_path, labels=False)
    assert "oracle" not in plan.of_row
    assert plan.left_out["oracle"].startswith('it needs target labels: layout "folder" has them where `labels`')
    only = Table(title="t", rows=(Row(name="o", variant="oracle", needs="target labels"),))
    with pytest.raises(UsageError, match="no row is left over gta2cs: o: it needs target labels"):
        plan_study(only, "gta2cs", (0,), settings(folders, cache, labels=False), tmp_path)


def test_a_row_may_name_the_labels_itself(folders: Path, cache: Path, tmp_path: Path) -> None:
    named = Row(name="o", variant="oracle", set=("target.labels=train-labels/*.png",), needs="target labels")
    chosen = settings(folders, cache, labels=False)
    plan = plan_study(Table(title="t", rows=(named,)), "gta2cs", (0,), chosen, tmp_path)
    assert (list(plan.of_row), plan.left_out) == (["o", "source only, further"], {})


def test_a_study_runs_the_oracle_and_its_data_are_no_difference(folders: Path, cache: Path, tmp_path: Path) -> None:
    rows = (Row(name="bare", variant="source-only"), Row(name="oracle", variant="oracle", needs="target labels"))
    for labels in (True, False):
        path, out = tmp_path / str(labels), io.StringIO()
        chosen = settings(folders, cache, "train.iterations=1", labels=labels)
        plan = plan_study(Table(title="t", rows=rows), "gta2cs", (0,), chosen, path)
        content = conduct(plan, path, "t", device="cpu", display=Display(Console(file=out, width=300)))
        assert failures(content) == []
        assert [row["name"] for row in content["rows"]][2:] == (["oracle"] if labels else [])
        assert content["differs"] == []
        assert list(content["left_out"]) == ([] if labels else ["oracle"])
        assert ("left out: oracle; it needs target labels" in out.getvalue()) != labels
        assert json.loads((path / "t.json").read_text())["left_out"] == content["left_out"]
