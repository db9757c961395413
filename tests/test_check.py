"""`check` names every kind of fault with its file, raises no false alarm, and prepare leaves out what it lists."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastuda.classes import CITYSCAPES_19, ClassSet
from fastuda.data.checking.check import check
from fastuda.data.checking.report import CheckReport, compare
from fastuda.data.checking.skip_list import read_skip_list, write_skip_list
from fastuda.data.packing.prepare import prepare
from fastuda.data.reading.images import LIMIT_VARIABLE
from fastuda.data.reading.listing import LeftOut
from fastuda.errors import FastudaError
from fastuda.recipe import Data, Domain

CLASSES = ClassSet.of(CITYSCAPES_19)
SIZE = (24, 16)


def write_pair(root: Path, name: str, values: tuple[int, ...] = (7, 11, 23, 26), seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)).save(root / f"images/{name}.png")
    label = Image.fromarray(rng.choice(values, (SIZE[1], SIZE[0])).astype(np.uint8)).convert("P")
    label.putpalette([255 - i // 3 for i in range(768)])
    label.save(root / f"labels/{name}.png")


@pytest.fixture
def gta5(tmp_path: Path) -> Domain:
    root = tmp_path / "gta5"
    for i in range(6):
        write_pair(root, f"{i:05d}", seed=i)
    return Domain(layout="gta5", root=root)


def faults(report: CheckReport) -> dict[str, str]:
    return {str(Path(p.file).relative_to(report.root)): p.kind for p in report.problems}


def break_one_of_each(root: Path) -> dict[str, str]:
    """Pairs 00010 and up, one fault each; returns relative file -> kind."""
    for i in range(10, 24):
        write_pair(root, f"{i:05d}", seed=i)

    def path(kind: str, number: int) -> Path:
        return root / kind / f"{number:05d}.png"

    path("images", 10).write_bytes(b"")
    path("images", 11).write_bytes(path("images", 11).read_bytes()[:-200])
    path("images", 12).write_bytes(b"<html>404</html>" * 20)
    damaged = bytearray(path("images", 13).read_bytes())
    damaged[60] ^= 0xFF
    path("images", 13).write_bytes(damaged)
    jpeg = io.BytesIO()
    Image.effect_noise((240, 160), 60).save(jpeg, "jpeg")
    path("images", 14).write_bytes(jpeg.getvalue()[: len(jpeg.getvalue()) // 2])
    Image.fromarray(np.zeros((16, 24), np.uint16)).save(path("images", 15))
    path("labels", 16).write_bytes(path("labels", 16).read_bytes()[:-5])
    Image.new("RGB", SIZE).save(path("labels", 17))
    Image.new("L", (SIZE[1], SIZE[0]), 7).save(path("labels", 18))
    Image.new("L", SIZE, 77).save(path("labels", 19))
    Image.fromarray(np.array([[0, 2, 255, 10]], np.uint8).repeat(16, 0).repeat(6, 1)).save(path("labels", 20))
    path("labels", 21).unlink()
    path("images", 22).unlink()
    path("labels", 23).unlink()
    path("labels", 23).mkdir()
    return {
        "images/00010.png": "empty", "images/00011.png": "truncated", "images/00012.png": "undecodable",
        "images/00013.png": "undecodable", "images/00014.png": "truncated", "images/00015.png": "mode",
        "labels/00016.png": "truncated", "labels/00017.png": "mode", "labels/00018.png": "size",
        "labels/00019.png": "value", "labels/00020.png": "train ids", "images/00021.png": "no label",
        "labels/00022.png": "no image", "labels/00023.png": "undecodable",
    }  # fmt: skip


def test_one_of_each_fault_is_named_and_then_left_out(gta5: Domain, tmp_path: Path) -> None:
    assert gta5.root is not None
    expected = break_one_of_each(gta5.root)
    data = Data(cache=tmp_path / "cache", max_unpaired=0.1)
    with pytest.raises(FastudaError, match=r"(?s)000\d\d\.png: .*run `fastuda data check gta5 /.*skip list"):
        prepare(gta5, "train", size=(12, 8), labels="resized", classes=CLASSES, data=data)
    steps: list[tuple[int, int]] = []
    report = check(gta5, CLASSES, "train", labelled=True, progress=lambda *step: steps.append(step))
    assert faults(report) == expected
    assert report.skip == [f"{i:05d}" for i in (*range(10, 21), 23)]
    assert report.num_samples == 18
    assert report.num_sound == 6
    assert sum(report.pixels.values()) + report.ignored_pixels == 6 * 24 * 16
    assert steps == [(i, 18) for i in range(1, 19)]
    write_skip_list(tmp_path / "cache", gta5, report)
    packed = prepare(gta5, "train", size=(12, 8), labels="resized", classes=CLASSES, data=data)
    assert packed.names == [f"{i:05d}" for i in range(6)]
    assert packed.left_out == LeftOut(without_label=1, without_image=1, skipped=12)
    assert json.loads(json.dumps(report.to_json()))["skip"] == report.skip


def test_a_sound_set_has_a_histogram_and_no_fault(gta5: Domain) -> None:
    report = check(gta5, CLASSES, "train", labelled=True)
    assert not report.problems
    assert not report.skip
    assert report.sizes == {"24x16": 6}
    assert list(report.pixels) == list(CITYSCAPES_19)
    assert {name for name, count in report.pixels.items() if count} == {"road", "building", "sky", "car"}
    assert sum(report.pixels.values()) + report.ignored_pixels == 6 * 24 * 16
    few = check(gta5, ClassSet.of(("sky", "road")), "train", labelled=True)
    assert few.pixels == {name: report.pixels[name] for name in ("sky", "road")}
    assert few.ignored_pixels == report.pixels["building"] + report.pixels["car"]


def test_without_labels_only_images_count(gta5: Domain) -> None:
    assert gta5.root is not None
    (gta5.root / "labels/00000.png").write_bytes(b"junk")
    report = check(gta5, CLASSES, "train", labelled=False)
    assert not report.problems
    assert report.pixels == {}


def test_labels_converted_to_train_ids_are_recognised(gta5: Domain, tmp_path: Path) -> None:
    assert gta5.root is not None
    converted = tmp_path / "converted"
    for i in range(3):
        write_pair(converted, f"{i:05d}", values=(0, 0, 1, 2, 10, 13))  # nowhere a 255
    report = check(Domain(layout="gta5", root=converted), CLASSES, "train", labelled=True)
    assert set(faults(report).values()) == {"train ids"}
    assert len(report.skip) == 3
    folder = Domain(layout="folder", root=converted, images="images/*.png", labels="labels/*.png")
    assert not check(folder, CLASSES, "train", labelled=True).problems


def test_a_tunnel_is_no_false_alarm(tmp_path: Path) -> None:
    for i in range(3):
        write_pair(tmp_path, f"{i:05d}", values=(0, 7, 7, 8, 11, 17))
    assert not check(Domain(layout="gta5", root=tmp_path), CLASSES, "train", labelled=True).problems
    write_pair(tmp_path, "00009", values=(7, 23, 26))
    write_pair(tmp_path, "00010", values=(0, 4, 5))
    assert not check(Domain(layout="gta5", root=tmp_path), CLASSES, "train", labelled=True).problems


def test_skip_lists_belong_to_one_data_set_and_split(gta5: Domain, tmp_path: Path) -> None:
    assert gta5.root is not None
    cache = tmp_path / "cache"
    assert read_skip_list(cache, gta5, "train", labelled=True) == frozenset()
    (gta5.root / "images/00003.png").write_bytes(b"")
    before = sorted(path for path in gta5.root.rglob("*"))
    path = write_skip_list(cache, gta5, check(gta5, CLASSES, "train", labelled=True))
    assert sorted(path for path in gta5.root.rglob("*")) == before
    assert read_skip_list(cache, gta5, "train", labelled=True) == {"00003"}
    assert read_skip_list(cache, gta5, "val", labelled=True) == frozenset()
    folders = [Domain(layout="folder", root=gta5.root, images=glob) for glob in ("images/*.png", "images/0*.png")]
    assert read_skip_list(cache, folders[0], "train", labelled=False) == frozenset()
    write_skip_list(cache, folders[0], check(folders[0], CLASSES, "train", labelled=False))
    assert [read_skip_list(cache, folder, "train", labelled=False) for folder in folders] == [{"00003"}, frozenset()]
    write_pair(gta5.root, "00003")
    write_skip_list(cache, gta5, check(gta5, CLASSES, "train", labelled=True))
    assert read_skip_list(cache, gta5, "train", labelled=True) == frozenset()
    path.write_text("[]")
    with pytest.raises(FastudaError, match="not a skip list; delete it"):
        read_skip_list(cache, gta5, "train", labelled=True)


def test_a_skip_list_holds_for_its_ids_and_until_the_faulty_file_changes(gta5: Domain, tmp_path: Path) -> None:
    assert gta5.root is not None
    write_pair(gta5.root, "00003", values=(7, 99))
    folder = Domain(layout="folder", root=gta5.root, images="images/*.png", labels="labels/*.png", ids={7: "road"})
    write_skip_list(tmp_path, folder, check(folder, CLASSES, "train", labelled=True))
    assert "00003" in read_skip_list(tmp_path, folder, "train", labelled=True)
    wider = folder.model_copy(update={"ids": {7: "road", 99: "ignore"}})
    assert read_skip_list(tmp_path, wider, "train", labelled=True) == frozenset()
    assert read_skip_list(tmp_path, folder, "train", labelled=False) == frozenset()
    write_pair(gta5.root, "00003", values=(7,))
    assert "00003" not in read_skip_list(tmp_path, folder, "train", labelled=True)


def test_compare_lists_classes_of_one_side_and_share_ratios(gta5: Domain, tmp_path: Path) -> None:
    write_pair(tmp_path / "other", "00000", values=(7, 23, 33))
    source = check(gta5, CLASSES, "train", labelled=True)
    target = check(Domain(layout="gta5", root=tmp_path / "other"), CLASSES, "train", labelled=True)
    found = compare(source, target)
    assert found.only_in_source == ["building", "car"]
    assert found.only_in_target == ["bicycle"]
    assert "train" in found.missing_in_both
    assert set(found.share_ratios) == {"road", "sky"}
    shares = [report.pixels["road"] / sum(report.pixels.values()) for report in (source, target)]
    assert found.share_ratios["road"] == pytest.approx(shares[1] / shares[0])
    assert found.note is None
    unlabelled = check(gta5, CLASSES, "train", labelled=False)
    assert "target was checked without labels" in str(compare(source, unlabelled).note)


def test_a_sample_is_used_again_when_either_of_its_files_or_what_refused_it_has_changed(
    gta5: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gta5.root is not None

    def skipped(domain: Domain, classes: ClassSet = CLASSES) -> frozenset[str]:
        return read_skip_list(tmp_path, domain, "train", labelled=True, classes=classes)

    image = gta5.root / "images/00002.png"
    before = image.read_bytes()
    Image.open(image).resize((30, 16)).save(image)  # the label is named, and the image may be what is mended
    write_skip_list(tmp_path, gta5, check(gta5, CLASSES, "train", labelled=True))
    assert skipped(gta5) == {"00002"}
    image.write_bytes(before)
    assert skipped(gta5) == frozenset()

    monkeypatch.setenv(LIMIT_VARIABLE, str(SIZE[0] * SIZE[1] - 1))
    write_skip_list(tmp_path, gta5, check(gta5, CLASSES, "train", labelled=True))
    assert len(skipped(gta5)) == 6
    monkeypatch.delenv(LIMIT_VARIABLE)
    assert skipped(gta5) == frozenset()

    plain = Domain(layout="folder", root=gta5.root, images="images/*.png", labels="labels/*.png")
    few, many = (ClassSet.of(tuple(f"class {i}" for i in range(count))) for count in (8, 40))
    write_skip_list(tmp_path, plain, check(plain, few, "train", labelled=True))
    assert len(skipped(plain, few)) == 6
    assert skipped(plain, many) == frozenset()
