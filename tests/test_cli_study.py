"""`study`, `train --repeat`, `eval --boundary` and `recipes` with variants, as a user types them."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import fastuda
from PIL import Image
from tiny import RUN

from fastuda.errors import FastudaError
from fastuda.study.plan import Plan

TINY = [*RUN, "model.width=0.0625", "warmup.iterations=2", "train.iterations=2", "eval.pictures=1"]


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTUDA_CACHE", str(tmp_path_factory.getbasetemp() / "cli-study-cache"))


def tiny() -> list[str]:
    return ["--device", "cpu", *(part for setting in TINY for part in ("--set", setting))]


def test_study_list_shows_every_row_as_a_recipe() -> None:
    code, output = fastuda("study", "list")
    assert code == 0
    for part in ("table3: Table 3", "CMix + PiCL", "BASE+cmix-picl", "57.7", "BASE+cmix-htcm --set method.tau=0.35"):
        assert part in output


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("tabel3",), "did you mean table3?"),
        (("table3", "--seeds", "0,x"), "--seeds 0,x: different whole numbers"),
        (("table3", "--seeds", "1,1"), "--seeds 1,1: different whole numbers"),
        (("table3", "--base", "gta"), "no recipe is called 'gta'"),
        (("table3", "--base", "demo", "--set", "warmup.iterations=0"), "there is nothing to train"),
    ],
)
def test_wrong_usage_is_said_before_anything_runs(arguments: tuple[str, ...], part: str, tmp_path: Path) -> None:
    code, output = fastuda("study", *arguments, "--run", tmp_path / "study")
    assert code == 2
    assert part in output
    assert not (tmp_path / "study").exists()


def test_a_study_prints_its_tables_and_goes_on_where_it_was(tmp_path: Path) -> None:
    command = ["study", "table6", "--base", "demo", "--run", tmp_path / "study", *tiny(), "--seeds"]
    code, output = fastuda(*command, "0")
    assert code == 0, output
    for part in (
        "[4/4] source only, further, seed 0",
        "one seed: nothing can be told",
        "IoU by class",
        "paper (GTA5 → Cityscapes)",
        "56.8",
        "table6.json",
    ):
        assert part in output
    code, output = fastuda(*command, "0,1")
    assert code == 0, output
    assert output.count("finished before") == 4
    content = json.loads((tmp_path / "study" / "table6.json").read_text())
    assert content["seeds"] == [0, 1]
    assert [len(row["cells"]) for row in content["rows"]] == [2, 2, 2]
    assert [bool(row["gain_over_control"]) for row in content["rows"]] == [True, True, False]
    with Image.open(tmp_path / "study" / "table6.png") as picture:
        assert picture.width > 1000


@pytest.mark.parametrize(("more", "control"), [((), True), (("--no-control",), False)])
def test_a_study_has_a_control_unless_told_otherwise(
    more: tuple[str, ...], control: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[Plan] = []

    def conducted(plan: Plan, *_: object, **__: object) -> None:
        planned.append(plan)
        raise FastudaError("enough")

    monkeypatch.setattr("fastuda.study.conduct.conduct", conducted)
    code, output = fastuda("study", "table6", "--base", "demo", "--run", tmp_path / "study", "--seeds", "0", *more)
    assert (code, "enough" in output) == (1, True)
    assert (planned[0].table.control_row is not None) == control


@pytest.mark.parametrize("command", [("study", "table6", "--base", "demo"), ("train", "demo", "--repeat", "2")])
def test_workers_are_told_to_the_study(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []

    def conducted(*_: object, workers: int, **__: object) -> None:
        told.append(workers)
        raise FastudaError("enough")

    monkeypatch.setattr("fastuda.study.conduct.conduct", conducted)
    for more in ((), ("--workers", "3")):
        code, output = fastuda(*command, "--run", tmp_path / "study", *more)
        assert (code, "enough" in output) == (1, True)
    assert told == [1, 3]


def test_one_run_has_no_workers(tmp_path: Path) -> None:
    code, output = fastuda("train", "demo", "--run", tmp_path / "run", "--workers", "2")
    assert code == 2
    assert "--workers 2: for the runs of --repeat N; --gpus N puts one run on several GPUs" in output
    assert not (tmp_path / "run").exists()


def test_repeat_names_a_file_in_the_place_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    code, output = fastuda("train", "demo", "--repeat", "2", "--run", tmp_path / "runs", *tiny())
    assert code == 1
    assert "runs: a file, and no folder for runs; choose another --run folder" in output


def test_repeat_runs_seeds_and_refuses_a_folder_in_use(tmp_path: Path) -> None:
    command = ["train", "demo", "--repeat", "2", "--run", tmp_path / "runs", *tiny()]
    code, output = fastuda(*command)
    assert code == 0, output
    for part in ("seeds 0, 1", "source only", "adapted", "gain over source only", "repeat.json"):
        assert part in output
    code, output = fastuda(*command)
    assert code == 1
    assert "exists already; continue it with --resume" in output
    code, output = fastuda(*command, "--resume")
    assert code == 0
    assert output.count("finished before") == 2

    run = tmp_path / "runs" / "seed-0"
    scores = tmp_path / "scores.json"
    code, output = fastuda(
        "eval", run, "--device", "cpu", "--boundary", "--flip", "--scales", "0.5,1", "--json", scores
    )
    assert code == 0, output
    for part in ("mIoU within (trimap)", "boundary F-score", "wrong pixels kept", "expected calibration error"):
        assert part in output
    content = json.loads(scores.read_text())
    assert (content["flip"], content["scales"], content["seed"]) == (True, [0.5, 1.0], 0)
    assert set(content["boundary"]["trimap"]) == {"1", "3", "5", "9"}
    assert content["data"]["evaluation"] == json.loads((run / "results.json").read_text())["data"]["evaluation"]
    for picture in ("confidence.png", "reliability.png"):
        assert (run / "evaluation" / picture).stat().st_size > 10_000
    for wrong, part in (("0", "scales: "), ("1;2", "--scales 1;2: numbers separated by commas")):
        code, output = fastuda("eval", run, "--device", "cpu", "--scales", wrong)
        assert code == 2
        assert part in output


def test_recipes_list_variants_and_show_a_recipe_with_one() -> None:
    code, output = fastuda("recipes")
    assert code == 0
    for part in ("syn2cs-edge", "RECIPE+variant is the recipe with", "CMix alone, which is DACS"):
        assert part in output
    code, output = fastuda("recipes", "gta2cs+cmix")
    assert code == 0
    assert "enabled = false" in output
    code, output = fastuda("recipes", "cmix", "--changes")
    assert code == 0
    assert 'parts = ["mix"]' in output


def test_repeats_in_a_place_that_is_no_folder_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "closed").mkdir()
    iterdir = Path.iterdir

    def listed(path: Path) -> Iterator[Path]:
        if path.name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied")
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", listed)
    for place, part in (
        ("file", "file: a file, and no folder for runs; choose another --run folder"),
        ("closed", "closed: cannot be looked into (Permission denied)"),
        ("x" * 300, "xxx: cannot be looked into (File name too long)"),
    ):
        for options in ([], ["--resume"]):
            code, output = fastuda("train", "demo", "--repeat", "2", "--run", tmp_path / place, *options)
            assert code == 1
            assert part in output
            assert output.count("\n") == 1
    assert (tmp_path / "file").read_text() == "precious"
