"""Data sets that fastuda knows, on empty files under the releases' names: what is found, paired and missed."""

from __future__ import annotations

from pathlib import Path

import pytest
from known_files import FILES, KNOWN, OTHERS, touch

from fastuda.data.reading.listing import LeftOut
from fastuda.data.reading.samples import find_samples
from fastuda.errors import FastudaError
from fastuda.layouts import LAYOUTS
from fastuda.recipe import Domain


@pytest.mark.parametrize("name", KNOWN)
def test_samples_are_the_releases_and_labels_are_their_own(tmp_path: Path, name: str) -> None:
    for samples in FILES[name].values():
        for _, image, label in samples:
            touch(tmp_path, image)
            if "/train/" not in label or name != "dark-zurich":
                touch(tmp_path, label)
    touch(tmp_path, *OTHERS[name])
    domain = Domain(layout=name, root=tmp_path)
    for split in ("train", "val"):
        for labelled in (False, True) if split in LAYOUTS[name].labelled else (False,):
            found = find_samples(domain, "train" if split == "train" else "val", labelled=labelled)
            assert found.left_out() == LeftOut()
            expected = [(n, tmp_path / i, tmp_path / label if labelled else None) for n, i, label in FILES[name][split]]
            assert [(s.name, s.image, s.label) for s in found.samples] == sorted(expected)
    swapped = Domain(layout=name, root=tmp_path, split="val")
    assert find_samples(swapped, "train", labelled=True).samples == find_samples(domain, "val", labelled=True).samples


@pytest.mark.parametrize(
    ("name", "image", "label"),
    [
        ("acdc", "rgb_anon_trainvaltest/rgb_anon/fog/val/A/A_frame_1_rgb_anon.png",
         "gt_trainval/gt/fog/val/A/A_frame_1_gt_labelIds.png"),
        ("acdc", "rgb_anon/fog/val/A/A_frame_1_rgb_anon.png", "gt/fog/val/A/A_frame_1_gt_labelTrainIds.png"),
        ("bdd100k", "seg/images/val/a-1.jpg", "seg/labels/val/a-1_train_id.png"),
        ("bdd100k", "bdd100k/images/10k/val/a-1.jpg", "bdd100k/labels/sem_seg/masks/val/a-1.png"),
        ("bdd100k", "images/10k/val/a-1.jpg", "labels/sem_seg/masks/val/a-1_train_id.png"),
        ("mapillary", "validation/images/a.jpg", "validation/labels/a.png"),
        ("idd", "leftImg8bit/val/0/1_leftImg8bit.png", "gtFine/val/0/1_gtFine_labelids.png"),
        ("idd", "leftImg8bit/val/0/1_leftImg8bit.jpg", "gtFine/val/0/1_gtFine_labellevel3Ids.png"),
        ("dark-zurich", "Dark_Zurich_val_anon/rgb_anon/val/night/A/A_1_rgb_anon.png",
         "Dark_Zurich_val_anon/gt/val/night/A/A_1_gt_labelTrainIds.png"),
    ],
)  # fmt: skip
def test_other_archives_and_kinds_of_labels_do_as_well(tmp_path: Path, name: str, image: str, label: str) -> None:
    touch(tmp_path, image, label)
    (sample,) = find_samples(Domain(layout=name, root=tmp_path), "val", labelled=True).samples
    assert (sample.image, sample.label) == (tmp_path / image, tmp_path / label)


def test_of_several_kinds_of_labels_the_finest_there_is_wins(tmp_path: Path) -> None:
    for i in range(3):
        touch(tmp_path, f"leftImg8bit/val/0/{i}_leftImg8bit.png")
    touch(tmp_path, *(f"gtFine/val/0/{i}_gtFine_labellevel3Ids.png" for i in range(3)))
    touch(tmp_path, *(f"gtFine/val/0/{i}_gtFine_labelids.png" for i in range(2)))
    touch(tmp_path, "gtFine/val/0/0_gtFine_labelcsTrainIds.png")
    found = find_samples(Domain(layout="idd", root=tmp_path), "val", labelled=True)
    assert found.left_out() == LeftOut()
    assert [s.label and s.label.name for s in found.samples] == [
        "0_gtFine_labelcsTrainIds.png", "1_gtFine_labelids.png", "2_gtFine_labellevel3Ids.png",
    ]  # fmt: skip


def test_a_folder_that_is_no_official_split_can_be_one(tmp_path: Path) -> None:
    touch(tmp_path, *OTHERS["dark-zurich"])
    twilight = Domain(layout="dark-zurich", root=tmp_path, split="train/twilight")
    (sample,) = find_samples(twilight, "train", labelled=False).samples
    assert sample.name == "GOPR0347/GOPR0347_frame_000001"


@pytest.mark.parametrize("archive", ["", "Dark_Zurich_test_anon/"])
def test_the_test_split_of_dark_zurich_lies_in_an_archive_of_its_own(tmp_path: Path, archive: str) -> None:
    image = f"{archive}rgb_anon/test/night/GOPR0364/GOPR0364_frame_000001_rgb_anon.png"
    touch(tmp_path, image)
    domain = Domain(layout="dark-zurich", root=tmp_path, split="test")
    (sample,) = find_samples(domain, "train", labelled=False).samples
    assert (sample.name, sample.image) == ("GOPR0364/GOPR0364_frame_000001", tmp_path / image)


def test_pictures_of_another_kind_are_counted(tmp_path: Path) -> None:
    touch(tmp_path, "training/images/a.jpg", "training/images/b.bmp", "training/v1.2/labels/a.png")
    found = find_samples(Domain(layout="mapillary", root=tmp_path), "train", labelled=True)
    assert found.other_suffix == [tmp_path / "training/images/b.bmp"]
    assert found.left_out() == LeftOut(other_suffix=1)


@pytest.mark.parametrize(
    ("name", "image", "message"),
    [
        ("acdc", "gt/fog/train/A/x", r"rgb_anon/CONDITION/train: no such folder \(there is no rgb_anon/CONDITION\)"),
        ("acdc", "rgb_anon/fog/test/A/A_rgb_anon.png", r"rgb_anon/CONDITION/train: .*CONDITION has only test\)"),
        ("acdc", "rgb_anon/fog/train/A/A.txt", r"rgb_anon/CONDITION/train: holds no SEQUENCE/\*_rgb_anon\.png; layout"),
        ("bdd100k", "images/100k/train/a.jpg", r"images/10k/train: no such folder \(there is no images/10k\)"),
        ("bdd100k", "images/10k/train/a.txt", r"images/10k/train: holds no \.png or \.jpg or \.jpeg file"),
        ("mapillary", "train/images/a.jpg", r"training/images: no such folder \(it has only train\)"),
        ("idd", "gtFine/train/0/a.png", r"leftImg8bit/train: no such folder \(there is no leftImg8bit\)"),
        (
            "dark-zurich",
            "rgb_anon/train/day/A/x",
            r"rgb_anon/train/night: no such folder \(rgb_anon/train has only",
        ),
        ("dark-zurich", "rgb_anon/val/night/A/x", r"rgb_anon/train/night: no such folder \(rgb_anon has only val\)"),
    ],
)
def test_a_missing_folder_is_named_with_what_is_there_and_what_belongs_there(
    tmp_path: Path, name: str, image: str, message: str
) -> None:
    touch(tmp_path, image)
    with pytest.raises(FastudaError, match=message) as error:
        find_samples(Domain(layout=name, root=tmp_path), "train", labelled=False)
    assert str(error.value).endswith(f"layout {name} expects {LAYOUTS[name].expected}")
    with pytest.raises(FastudaError, match="no such folder; expected there: ") as error:
        find_samples(Domain(layout=name, root=tmp_path / "gone"), "train", labelled=False)
    assert str(error.value).endswith(LAYOUTS[name].expected)


def test_what_is_there_instead_is_told_of_the_place_that_has_it(tmp_path: Path) -> None:
    touch(tmp_path, "leftImg8bit_trainvaltest/leftImg8bit/val/ulm/ulm_0_0_leftImg8bit.png")
    cityscapes = Domain(layout="cityscapes", root=tmp_path)
    with pytest.raises(FastudaError, match=r" \(leftImg8bit_trainvaltest/leftImg8bit has only val\); "):
        find_samples(cityscapes, "train", labelled=False)
    touch(tmp_path, "leftImg8bit/test/berlin/berlin_0_0_leftImg8bit.png")
    with pytest.raises(FastudaError, match=r" \(leftImg8bit has only test\); "):
        find_samples(cityscapes, "train", labelled=False)


@pytest.mark.parametrize("name", KNOWN)
def test_missing_labels_are_named(tmp_path: Path, name: str) -> None:
    touch(tmp_path, *(image for samples in FILES[name].values() for _, image, _ in samples))
    place = LAYOUTS[name].labels[0].places[0].split("/")[0]
    with pytest.raises(FastudaError, match=f"{'validation' if name == 'mapillary' else place}/.*: no such folder"):
        find_samples(Domain(layout=name, root=tmp_path), "val", labelled=True)


@pytest.mark.parametrize(
    ("name", "split", "image", "having"),
    [
        ("dark-zurich", "train", "rgb_anon/train/night/A/1_rgb_anon.png", "val"),
        ("cityscapes", "test", "leftImg8bit/test/berlin/berlin_0_0_leftImg8bit.png", "train, val"),
        ("acdc", "test", "rgb_anon/fog/test/A/1_rgb_anon.png", "train, val"),
        ("bdd100k", "test", "images/10k/test/1.jpg", "train, val"),
        ("mapillary", "test", "testing/images/1.jpg", "train, val"),
        ("idd", "test", "leftImg8bit/test/0/1_leftImg8bit.png", "train, val"),
    ],
)
def test_a_split_without_labels_says_so(tmp_path: Path, name: str, split: str, image: str, having: str) -> None:
    touch(tmp_path, image)
    domain = Domain(layout=name, root=tmp_path, split=split)
    assert len(find_samples(domain, "train", labelled=False).samples) == 1
    touch(tmp_path, "gtFine/test/berlin/berlin_0_0_gtFine_labelIds.png")  # a dummy, as published
    with pytest.raises(FastudaError, match=f"without labels of its split {split}; those of {having}"):
        find_samples(domain, "train", labelled=True)
