"""Known data sets on small made files: label values, what `check` and `doctor` say, and the layouts' records."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from known_files import FILES, KNOWN
from PIL import Image
from typer.testing import CliRunner

from fastuda.classes import CITYSCAPES_19, ClassSet
from fastuda.data.checking.audit import audit, domain_of, labelled_split
from fastuda.data.checking.check import check
from fastuda.data.packing.prepare import prepare
from fastuda.data.reading.labels import id_table
from fastuda.data.reading.samples import find_samples
from fastuda.errors import FastudaError, UsageError
from fastuda.layouts import LAYOUTS, SPLIT, Files, Labels, Layout
from fastuda.recipe import Data, Domain
from fastuda.recipe.file import load_recipe
from fastuda.report.doctor import examine
from fastuda_cli.main import app

ROOT = Path(__file__).resolve().parents[1]
CLASSES = ClassSet.of(CITYSCAPES_19)
# Label value:train id, by data set and ending; typed from the data sets' documentation.
LABEL_IDS = "7:0 8:1 11:2 12:3 13:4 17:5 19:6 20:7 21:8 22:9 23:10 24:11 25:12 26:13 27:14 28:15 31:16 32:17 33:18"
TRAIN_IDS = " ".join(f"{i}:{i}" for i in range(19))
VISTAS = (
    "13:0 24:0 41:0 2:1 15:1 17:2 6:3 3:4 45:5 47:5 48:6 50:7 30:8 29:9 27:10 19:11 20:12 21:12 22:12 55:13 61:14 "
    "54:15 58:16 57:17 52:18"
)
IDD_LEVEL3 = "0:0 2:1 22:2 14:3 15:4 20:5 19:6 18:7 24:8 3:9 25:10 4:11 5:12 9:13 10:14 11:15 6:17 7:18"
IDD_IDS = "0:0 3:1 29:2 20:3 21:4 26:5 25:6 24:7 32:8 5:9 33:10 6:11 8:12 12:13 13:14 14:15 17:16 9:17 10:18"
TABLES = [
    ("acdc", "_gt_labelIds.png", LABEL_IDS, 33),
    ("acdc", "_gt_labelTrainIds.png", TRAIN_IDS, 18),
    ("bdd100k", ".png", TRAIN_IDS, 18),
    ("bdd100k", "_train_id.png", TRAIN_IDS, 18),
    ("mapillary", ".png", VISTAS, 65),
    ("idd", "_gtFine_labellevel3Ids.png", IDD_LEVEL3, 25),
    ("idd", "_gtFine_labelids.png", IDD_IDS, 39),
    ("idd", "_gtFine_labelcsTrainIds.png", TRAIN_IDS, 18),
    ("dark-zurich", "_gt_labelIds.png", LABEL_IDS, 33),
    ("dark-zurich", "_gt_labelTrainIds.png", TRAIN_IDS, 18),
]
# Two values of each data set's preferred labels, and the classes that they are.
VALUES = {
    "acdc": ((7, 23), ("road", "sky")),
    "bdd100k": ((0, 10), ("road", "sky")),
    "mapillary": ((13, 27), ("road", "sky")),
    "idd": ((0, 10), ("road", "sky")),
    "dark-zurich": ((7, 23), ("road", "sky")),
}


def made(root: Path, name: str, *, train_labels: bool = True) -> Domain:
    """Small images and labels, the upper half one class and the lower another, under the release's names."""
    rng = np.random.default_rng(0)
    for split, samples in FILES[name].items():
        for _, image, label in samples:
            (root / image).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (32, 64, 3), dtype=np.uint8)).save(root / image)
            if split not in LAYOUTS[name].labelled or not (train_labels or split == "val"):
                continue
            (root / label).parent.mkdir(parents=True, exist_ok=True)
            (road, sky), _ = VALUES[name]
            Image.fromarray(np.repeat(np.array([[sky], [road]], np.uint8), 16, 0).repeat(64, 1)).save(root / label)
    return Domain(layout=name, root=root)


@pytest.mark.parametrize(("name", "ending", "row", "highest"), TABLES)
def test_values_become_the_documented_train_ids(name: str, ending: str, row: str, highest: int) -> None:
    table = id_table(Domain(layout=name), CLASSES, Path(f"some/1{ending}"))
    expected = np.full(1 << 16, 255, np.uint8)
    for pair in row.split():
        value, train_id = map(int, pair.split(":"))
        expected[value] = train_id
    assert np.array_equal(table.train_ids, expected)
    assert np.flatnonzero(table.known).tolist() == [*range(highest + 1), 255]
    assert f"0-{highest}" in table.expected


@pytest.mark.parametrize("name", KNOWN)
def test_check_and_doctor_answer(tmp_path: Path, name: str) -> None:
    domain = made(tmp_path / "data", name)
    report = check(domain, CLASSES, "val", labelled=True, workers=1)
    assert report.problems == []
    pixels = len(FILES[name]["val"]) * 32 * 64
    assert {c: count for c, count in report.pixels.items() if count} == dict.fromkeys(VALUES[name][1], pixels // 2)
    findings = {finding.subject: finding for finding in examine([domain])}
    for split in ("train", "val"):
        finding = findings[f"{name} {split}"]
        assert (finding.status, finding.found) == ("ok", f"{len(FILES[name][split])} samples in {domain.root}")
    label = tmp_path / "data" / FILES[name]["val"][0][2]
    Image.fromarray(np.full((32, 64), 200, np.uint8)).save(label)
    (problem,) = check(domain, CLASSES, "val", labelled=True, workers=1).problems
    assert (problem.kind, problem.file) == ("value", str(label))
    assert f"outside {LAYOUTS[name].labels[0].meaning}" in problem.detail


@pytest.mark.parametrize("name", KNOWN)
def test_training_on_a_target_reads_no_label_of_it(tmp_path: Path, name: str) -> None:
    domain = made(tmp_path / "data", name, train_labels=False)
    for _, _, label in FILES[name]["train"]:
        (tmp_path / "data" / label).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / label).write_text("no picture at all")
    data = Data(cache=tmp_path / "cache")
    train = prepare(domain, "train", size=(32, 16), labels="none", classes=CLASSES, data=data, workers=1)
    assert train.names == sorted(sample for sample, _, _ in FILES[name]["train"])
    val = prepare(domain, "val", size=(32, 16), labels="own", classes=CLASSES, data=data, workers=1)
    assert val.label_pixels().sum(0)[[0, 10]].tolist() == [len(val) * 32 * 64 // 2] * 2
    recipe = load_recipe("gta2cs", [f"data.cache={tmp_path / 'cache'}"])
    assert labelled_split(recipe, domain) == "val"
    report, _ = audit(recipe, domain, "train", None, lambda *_: None)
    assert (report.labelled, report.problems) == (False, [])


@pytest.mark.parametrize("name", [name for name in KNOWN if "train" in LAYOUTS[name].labelled])
def test_the_training_labels_of_the_recipes_source_are_checked(tmp_path: Path, name: str) -> None:
    root = made(tmp_path / "data", name).root
    assert root is not None
    label = root / FILES[name]["train"][0][2]
    Image.fromarray(np.full((32, 64), 200, np.uint8)).save(label)
    recipe = load_recipe("gta2cs", [f"source.layout={name}", f"data.cache={tmp_path / 'cache'}"])
    report, _ = audit(recipe, domain_of(recipe, name, root), "train", None, lambda *_: None)
    assert [(problem.kind, problem.file) for problem in report.problems] == [("value", str(label))]
    both = load_recipe(recipe, [f"target.layout={name}"])
    sides = [labelled_split(both, domain_of(both, name, root, side), side) for side in ("source", "target", None)]
    assert sides == ["train", "val", "val"]


def test_a_source_split_without_labels_is_checked_without(tmp_path: Path) -> None:
    recipe = load_recipe("gta2cs", ["source.layout=dark-zurich"])
    assert labelled_split(recipe, domain_of(recipe, "dark-zurich", tmp_path)) == "val"
    own = load_recipe(recipe, ["source.split=train/day"])
    assert labelled_split(own, domain_of(own, "dark-zurich", tmp_path)) == "train"


def test_labels_of_others_that_hold_255_are_not_taken_for_converted_ones(tmp_path: Path) -> None:
    image, label = "rgb_anon/fog/val/A/A_1_rgb_anon.png", "gt/fog/val/A/A_1_gt_labelIds.png"
    for name in (image, label):
        (tmp_path / name).parent.mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(tmp_path / image)
    Image.fromarray(np.array([[7, 255]], np.uint8).repeat(16, 0).repeat(8, 1)).save(tmp_path / label)
    assert check(Domain(layout="acdc", root=tmp_path), CLASSES, "val", labelled=True, workers=1).problems == []


def test_the_commands_know_every_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTUDA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    folder = made(tmp_path / "data", "dark-zurich").root
    result = CliRunner().invoke(app, ["doctor", "--dark-zurich", str(folder)])
    assert result.exit_code == 0
    assert "dark-zurich val" in result.output
    assert CliRunner().invoke(app, ["doctor", "--acdc", str(folder)]).exit_code == 1
    result = CliRunner().invoke(app, ["data", "check", "dark-zurich", str(folder), "--split", "val"])
    assert (result.exit_code, "all sound" in result.output) == (0, True)
    result = CliRunner().invoke(app, ["data", "check", "dark-zurch", str(folder)])
    assert result.exit_code == 2
    assert "did you mean dark-zurich?" in " ".join(result.output.split())


def test_a_misspelt_layout_names_the_nearest_and_all_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"target\.layout: no such layout; did you mean cityscapes\?; there are gta5,"):
        load_recipe("gta2cs", ["target.layout=cityscape"])
    with pytest.raises(UsageError, match=r"layout kitti: gta5, synthia, .* or folder"):
        domain_of(load_recipe("gta2cs"), "kitti", tmp_path)


def test_records_are_whole() -> None:
    for name, layout in LAYOUTS.items():
        assert layout.name == name
        assert set(layout.labelled) <= set(layout.splits)
        for files in (layout.images, *layout.labels):
            for place in files.places if files else ():
                assert place.split("/")[-1] == "*"
                assert place.split("/").count(SPLIT) == bool(layout.splits)
        for kind in layout.labels:
            assert set(kind.ids.values()) <= set(CITYSCAPES_19)
            assert max(kind.ids) < kind.num_ids


def test_one_record_is_all_that_a_new_data_set_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = Labels(("{split}/masks/{town}/*",), ("_mask.png",), {1: "road", 2: "sky"}, 4, "Town's ids 0-3")
    images = Files(("{split}/photos/{town}/*",), (".jpg",))
    town = Layout(
        "town", "Town", "SPLIT/photos and SPLIT/masks", images, (labels,), {"train": "a", "val": "b"}, ("val",)
    )
    monkeypatch.setitem(LAYOUTS, "town", town)
    for folder in ("a", "b"):
        (tmp_path / folder / "photos/x").mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(tmp_path / folder / "photos/x/1.jpg")
    (tmp_path / "b/masks/x").mkdir(parents=True)
    Image.fromarray(np.full((16, 16), 2, np.uint8)).save(tmp_path / "b/masks/x/1_mask.png")
    domain = load_recipe("gta2cs", ["target.layout=town", f"target.root={tmp_path}"]).target
    assert [sample.name for sample in find_samples(domain, "train", labelled=False).samples] == ["x/1"]
    assert check(domain, CLASSES, "val", labelled=True, workers=1).pixels["sky"] == 256
    assert {f.subject: f.status for f in examine([domain])}["town val"] == "ok"
    with pytest.raises(FastudaError, match="Town comes without labels of its split train"):
        find_samples(domain, "train", labelled=True)


def test_no_layout_is_called_by_its_name_outside_the_records() -> None:
    allowed = {ROOT / "fastuda/layouts.py", ROOT / "fastuda/recipe/paper.py"}
    names = set(LAYOUTS) - {"folder"}  # which is a word of other things too
    found = []
    for package in ("fastuda", "bench/fastuda_bench", "cli/fastuda_cli", "kernels/fastuda_kernels"):
        for path in sorted((ROOT / package).rglob("*.py")):
            nodes = ast.walk(ast.parse(path.read_text())) if path not in allowed else ()
            found += [f"{path}:{n.lineno}" for n in nodes if isinstance(n, ast.Constant) and n.value in names]
    assert found == []
