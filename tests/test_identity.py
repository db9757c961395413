"""What a run is made of, and what of it may change while it goes on."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastuda.runs.identity as identity_module
from fastuda.data.datasets import Datasets
from fastuda.data.packing.pack import Packed, Record
from fastuda.data.reading.listing import LeftOut
from fastuda.errors import FastudaError, UnreadableError
from fastuda.recipe import Recipe
from fastuda.recipe.data import Domain
from fastuda.recipe.file import load_recipe
from fastuda.runs.identity import Identity, code_version
from fastuda.runs.record import RunRecord
from fastuda.runtime.device import versions


def packed(names: str, digest: str) -> Packed:
    records = [Record(name, [1, 2], [ord(name), 7], f"{name}.png", None, [3], [9]) for name in names]
    return Packed(Path("/x"), list(names), (4, 4), digest, LeftOut(), "png", records)


@pytest.fixture
def data() -> Datasets:
    return Datasets(packed("abc", "1"), packed("de", "2"), packed("f", "3"))


@pytest.fixture
def known(tiny_recipe: Callable[..., Recipe], data: Datasets) -> Identity:
    return Identity.of("demo", tiny_recipe(), tiny_recipe(), tiny_recipe(), data)


def test_a_transformers_run_is_of_its_librarys_version_too(
    tiny_recipe: Callable[..., Recipe], data: Datasets, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("model.kind=segformer", "model.variant=mit-b0", "model.weights=random")
    network = tiny_recipe().model_copy(update={"model": load_recipe("gta2cs", settings).model})
    begun = Identity.of("demo", network, network, network, data)
    assert begun.libraries["transformers"] == metadata.version("transformers")
    assert begun.asked_differences("demo", network, network) == []
    monkeypatch.setattr(identity_module, "versions", lambda *further: {**versions(*further), "transformers": "9.9"})
    told = begun.asked_differences("demo", network, network)
    assert told == [f"transformers: the run has {metadata.version('transformers')}, here is 9.9"]
    with_updates = load_recipe("gta2cs", [*settings, "model.lora=2"]).model
    assert with_updates.libraries == ("transformers", "peft")


@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("runtime.loader_threads=2", "runtime.watchdog_minutes=0"),
        ("data.cache=/other disk", "data.max_unpaired=0.5"),
        ("data.on_error=skip", "data.max_failed=3"),
        ("train.checkpoint_every=3", "train.checkpoints_kept=7"),
        ("description=another",),
    ],
)
def test_what_has_no_say_in_the_numbers_may_change(
    changes: tuple[str, ...], known: Identity, tiny_recipe: Callable[..., Recipe]
) -> None:
    assert known.asked_differences("demo", tiny_recipe(*changes), tiny_recipe(*changes)) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("method.tau=0.5", "method.tau: the run has 0.95, you ask for 0.5"),
        ("htcm.from=mixed", "htcm.from: the run has target, you ask for mixed"),
        ("train.optimizer.lr_head=1e-3", "train.optimizer.lr_head: the run has 0.0025, you ask for 0.001"),
        ("source.root=/elsewhere", "source.root: the run has None, you ask for /elsewhere"),
        ('eval.subsets.two=["road"]', "eval.subsets: the run has {}, you ask for {'two': ['road']}"),
        ("views.crop_size=[32, 32]", "views.crop_size: the run has [512, 512], you ask for [32, 32]"),
        ("seed=1", "seed: the run has 0, you ask for 1"),
        ("data.pack=raw", "data.pack: the run has png, you ask for raw"),
        ("model.aspp=[6, 12]", "model.aspp: the run has [6, 12, 18, 24], you ask for [6, 12]"),
        ("model.auxiliary=false", "model.auxiliary: the run has True, you ask for False"),
        ("runtime.amp=none", "runtime.amp: the run has auto, you ask for none"),
        ("runtime.deterministic=true", "runtime.deterministic: the run has False, you ask for True"),
        ("train.iterations=7", "train.iterations: the run has 250000, you ask for 7"),
    ],
)
def test_another_recipe_is_told_by_field(
    change: str, message: str, known: Identity, tiny_recipe: Callable[..., Recipe]
) -> None:
    assert known.asked_differences("demo", tiny_recipe(), tiny_recipe(change)) == [message]


def test_another_recipes_name_is_another_run(known: Identity, tiny_recipe: Callable[..., Recipe]) -> None:
    lines = known.asked_differences("mine", tiny_recipe(), tiny_recipe())
    assert lines == ["recipe: the run has demo, you ask for mine"]


@pytest.mark.parametrize(
    "moved",
    [f"target.{name}" for name, field in Domain.model_fields.items() if "pathlib.Path" in str(field.annotation)],
)
def test_a_recipe_file_that_was_edited_since_is_told(
    moved: str, known: Identity, tiny_recipe: Callable[..., Recipe]
) -> None:
    (line,) = known.asked_differences("demo", tiny_recipe("method.tau=0.5", f"{moved}=/moved"), tiny_recipe())
    assert line == "method.tau: the run has 0.95, you ask for 0.5 (demo has changed since)"


def test_what_weights_set_may_be_said_either_way(tiny_recipe: Callable[..., Recipe], data: Datasets) -> None:
    asked = tiny_recipe()
    ran = tiny_recipe("model.input=bgr-caffe", "model.aspp=[6, 12]")
    known = Identity.of("demo", asked, asked, ran, data)
    assert known.asked_differences("demo", asked, asked) == known.asked_differences("demo", asked, ran) == []
    assert known.resumed(asked, ran).model == ran.model
    assert len(known.asked_differences("demo", asked, tiny_recipe("model.aspp=[6]", "model.input=bgr-caffe"))) == 1


@pytest.mark.parametrize("what", ["code", "torch", "nvidia-dali-cuda130", "ranks"])
def test_other_code_libraries_and_ranks_are_told(
    what: str, known: Identity, tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    if what == "code":
        monkeypatch.setattr(identity_module, "code_version", lambda: "0.2.0 (123456789abc)")
    elif what == "ranks":
        known = known.model_copy(update={"world_size": 4})
    else:
        known = known.model_copy(update={"libraries": {**known.libraries, what: "1.2.3"}})
    (line,) = known.asked_differences("demo", tiny_recipe(), tiny_recipe())
    assert line.startswith(f"{what}: the run has ")


def test_the_codes_version_is_of_its_source() -> None:
    assert code_version().startswith("0.1.0 (")
    assert code_version() == code_version()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("ab", "source data: the run has 3 samples, here are 2: 1 gone (c)"),
        ("abcd", "source data: the run has 3 samples, here are 4: 1 new (d)"),
        ("xyz", "source data: the run has 3 samples, here are 3: 3 gone (a, b, c); 3 new (x, y, z)"),
        (
            "abc",
            "source data: the run has 3 samples, here are 3: the same samples, packed in another way or anoth",
        ),
    ],
)
def test_other_data_is_told_by_sample(names: str, message: str, known: Identity, data: Datasets) -> None:
    (line,) = known.data_differences(replace(data, source=packed(names, "9")))
    assert line.startswith(message)


def test_changed_files_are_told_by_sample(known: Identity, data: Datasets) -> None:
    inverted = packed("abc", "9")
    inverted.records[1] = replace(inverted.records[1], checksums=[0, 0])
    (line,) = known.data_differences(replace(data, source=inverted))
    assert line.endswith("1 changed (b)")
    assert known.data_differences(data) == []


def test_a_record_comes_back_as_it_was_written(known: Identity, tmp_path: Path) -> None:
    record = RunRecord(identity=known)
    record.begin("CPU", None, [])
    record.begin("CPU", ("adapted", 3), ["seed: the run has 0, you ask for 1"])
    record.write(tmp_path / "run.json")
    assert RunRecord.read(tmp_path / "run.json") == record
    assert record.forced() == ["seed: the run has 0, you ask for 1"]


def test_names_that_are_no_utf_8_come_back_too(known: Identity, tmp_path: Path) -> None:
    source = known.data["source"].model_copy(update={"samples": {"stra\udcdfe": [1, 2]}})
    changes = {"init": "/n\udcfc/net.safetensors", "name": "\udcfc", "data": {**known.data, "source": source}}
    record = RunRecord(identity=known.model_copy(update=changes))
    record.write(tmp_path / "run.json")
    assert RunRecord.read(tmp_path / "run.json") == record


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_record_is_refused(seed: int, known: Identity, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    RunRecord(identity=known).write(path)
    content, rng = bytearray(path.read_bytes()), np.random.default_rng(seed)
    place = int(rng.integers(len(content) - 1))
    if seed % 3:
        content[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(content if seed % 3 else content[:place])
    with pytest.raises(FastudaError, match=r"run\.json: damaged .*, so nothing says what this run is made of"):
        RunRecord.read(path)


@pytest.mark.parametrize("content", ["[]", "null", "{}", '{"sha256": 1}', "[" * 100_000, '"sha256"'])
def test_what_is_no_record_is_refused(content: Any, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(FastudaError, match=r"run\.json: damaged"):
        RunRecord.read(tmp_path / "run.json")
    assert json.dumps(content)


def test_a_record_that_the_system_refuses_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(UnreadableError, match=r"run\.json: cannot be read \(Permission denied\), so nothing says"):
        RunRecord.read(tmp_path / "run.json")
