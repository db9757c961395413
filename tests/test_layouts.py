"""Each layout finds its pairs, whatever lies beside them, and says what it misses."""

from __future__ import annotations

from pathlib import Path

import pytest
from known_files import touch

from fastuda.data.reading.listing import LeftOut
from fastuda.data.reading.samples import find_samples
from fastuda.errors import FastudaError
from fastuda.recipe import Domain


def gta5(root: Path, **fields: object) -> Domain:
    return Domain.model_validate({"layout": "gta5", "root": root, **fields})


def folder(root: Path | None, **fields: object) -> Domain:
    return Domain.model_validate({"layout": "folder", "root": root, **fields})


def names(domain: Domain, labelled: bool = True, split: str = "train") -> list[str]:
    listing = find_samples(domain, "train" if split == "train" else "val", labelled=labelled)
    return [sample.name for sample in listing.samples]


def test_gta5_pairs_and_unpaired(tmp_path: Path) -> None:
    touch(tmp_path, "images/00001.png", "images/00002.png", "labels/00002.png", "labels/00003.png")
    touch(tmp_path, "images/._00002.png", "images/Thumbs.db", "read_me.txt")
    listing = find_samples(gta5(tmp_path), "train", labelled=True)
    assert [s.name for s in listing.samples] == ["00002"]
    assert listing.samples[0].label == tmp_path / "labels/00002.png"
    assert [listing.without_label, listing.without_image] == [
        [tmp_path / "images/00001.png"],
        [tmp_path / "labels/00003.png"],
    ]
    assert names(gta5(tmp_path), labelled=False) == ["00001", "00002"]
    assert names(gta5(tmp_path), split="val") == ["00002"]


@pytest.mark.parametrize("nesting", ["", "RAND_CITYSCAPES"])
def test_synthia_at_both_depths(tmp_path: Path, nesting: str) -> None:
    touch(tmp_path / nesting, "RGB/0000000.png", "GT/LABELS/0000000.png", "GT/COLOR/0000000.png")
    listing = find_samples(Domain(layout="synthia", root=tmp_path), "train", labelled=True)
    assert [s.name for s in listing.samples] == ["0000000"]
    assert listing.samples[0].label == tmp_path / nesting / "GT/LABELS/0000000.png"


@pytest.mark.parametrize("image_base", ["leftImg8bit", "leftImg8bit_trainvaltest/leftImg8bit"])
@pytest.mark.parametrize("label_base", ["gtFine", "gtFine_trainvaltest/gtFine"])
def test_cityscapes_nestings_flavours_and_splits(tmp_path: Path, image_base: str, label_base: str) -> None:
    touch(tmp_path, f"{image_base}/train/aachen/aachen_000000_000019_leftImg8bit.png")
    touch(tmp_path, f"{image_base}/train/bochum/bochum_000000_000001_leftImg8bit.png")
    touch(tmp_path, f"{image_base}/val/ulm/ulm_000000_000002_leftImg8bit.png")
    touch(tmp_path, f"{label_base}/train/aachen/aachen_000000_000019_gtFine_labelIds.png")
    touch(tmp_path, f"{label_base}/train/aachen/aachen_000000_000019_gtFine_labelTrainIds.png")
    touch(tmp_path, f"{label_base}/train/aachen/aachen_000000_000019_gtFine_color.png")
    touch(tmp_path, f"{label_base}/train/bochum/bochum_000000_000001_gtFine_labelTrainIds.png")
    touch(tmp_path, f"{label_base}/val/ulm/ulm_000000_000002_gtFine_labelIds.png")
    domain = Domain(layout="cityscapes", root=tmp_path)
    train = find_samples(domain, "train", labelled=True)
    assert train.left_out() == LeftOut()
    assert [(s.name, s.label and s.label.name) for s in train.samples] == [
        ("aachen/aachen_000000_000019", "aachen_000000_000019_gtFine_labelIds.png"),
        ("bochum/bochum_000000_000001", "bochum_000000_000001_gtFine_labelTrainIds.png"),
    ]
    assert names(domain, split="val") == ["ulm/ulm_000000_000002"]
    swapped = Domain(layout="cityscapes", root=tmp_path, split="val", val_split="train")
    assert names(swapped) == ["ulm/ulm_000000_000002"]
    with pytest.raises(FastudaError, match=rf"leftImg8bit/test: no such folder \({image_base} has only train, val\)"):
        names(Domain(layout="cityscapes", root=tmp_path, split="test"), labelled=False)


def test_folder_globs_agree_in_every_wildcard(tmp_path: Path) -> None:
    touch(tmp_path, "a/rgb/1.jpg", "a/rgb/2.jpg", "b/rgb/1.jpg", "a/ids/1_id.png", "b/ids/1_id.png", "b/ids/9_id.png")
    domain = folder(tmp_path, images="*/rgb/*.jpg", labels="*/ids/*_id.png", val_images="b/rgb/*.jpg")
    listing = find_samples(domain, "train", labelled=True)
    assert [s.name for s in listing.samples] == ["a/1", "b/1"]
    assert listing.samples[1].label == tmp_path / "b/ids/1_id.png"
    assert listing.without_label == [tmp_path / "a/rgb/2.jpg"]
    assert listing.without_image == [tmp_path / "b/ids/9_id.png"]
    assert names(domain, labelled=False, split="val") == ["1"]


def test_folder_takes_absolute_and_recursive_globs(tmp_path: Path) -> None:
    touch(tmp_path, "x/1.png", "x/deep/er/2.png", "y/1.png", "y/deep/er/2.png")
    domain = folder(tmp_path / "x", images="**/*.png", labels=f"{tmp_path}/y/**/*.png")
    assert names(domain) == ["1", "deep/er/2"]
    assert names(folder(tmp_path, images="x/[0-9].png", labels="y/[0-9].png")) == ["1"]


@pytest.mark.parametrize("line", ["aachen_1", "aachen_1.png", "city/aachen_1", "city/aachen_1.png"])
def test_listing_narrows_by_any_way_to_write_a_name(tmp_path: Path, line: str) -> None:
    touch(tmp_path, "city/aachen_1.png", "city/aachen_2.png", "labels/aachen_1.png", "labels/aachen_2.png")
    (tmp_path / "list.txt").write_text(f"{line}\n\n")
    domain = folder(tmp_path, images="city/*.png", labels="labels/*.png", listing=tmp_path / "list.txt")
    assert names(domain) == ["aachen_1"]


def test_listing_line_that_could_mean_two_samples(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "list.txt").write_text("1.png")
    domain = folder(tmp_path, images="*/*.png", listing=tmp_path / "list.txt")
    with pytest.raises(FastudaError, match=r"lists '1\.png', and no image has this name \(names look like 'a/1'\)"):
        names(domain, labelled=False)
    (tmp_path / "list.txt").write_text("b/1.png")
    assert names(domain, labelled=False) == ["b/1"]


def test_listing_of_gta5_applies_to_training_only(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{kind}/{i:05d}.png" for kind in ("images", "labels") for i in (1, 2, 3)))
    touch(tmp_path, "images/00004.png")
    listing = tmp_path / "train.txt"
    listing.write_text("00003.png\n00001.png\n00004.png\n")
    domain = gta5(tmp_path, listing=listing)
    found = find_samples(domain, "train", labelled=True)
    assert [s.name for s in found.samples] == ["00001", "00003"]
    assert found.without_label == [tmp_path / "images/00004.png"]
    assert names(domain, split="val") == ["00001", "00002", "00003"]
    listing.write_text("00001.png\n00009.png\n")
    with pytest.raises(FastudaError, match=r"train\.txt: lists '00009\.png', and no image has this name"):
        names(domain)
    listing.write_text("\n")
    with pytest.raises(FastudaError, match="lists no name"):
        names(domain)
    listing.unlink()
    with pytest.raises(FastudaError, match=r"train\.txt: cannot read this list"):
        names(domain)


def test_messages_name_the_folder_and_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(FastudaError, match="no folder is given for the gta5 data: pass --source DIR or --target DIR"):
        names(Domain(layout="gta5"))
    with pytest.raises(FastudaError, match=r"absent: no such folder; expected there: images/00001\.png"):
        names(gta5(tmp_path / "absent"))
    with pytest.raises(FastudaError, match=r"/images: no such folder; layout gta5 expects images/00001"):
        names(gta5(tmp_path))
    with pytest.raises(FastudaError, match=r"/RGB: no such folder; layout synthia expects RGB/0000000"):
        names(Domain(layout="synthia", root=tmp_path))
    with pytest.raises(FastudaError, match=r"train: no such folder \(there is no leftImg8bit\)"):
        names(Domain(layout="cityscapes", root=tmp_path))
    (tmp_path / "images").mkdir()
    with pytest.raises(FastudaError, match=r"/images: holds no \.png or \.jpg or \.jpeg file"):
        names(gta5(tmp_path))
    touch(tmp_path, "images/1.png", "labels/2.png")
    with pytest.raises(FastudaError, match=r"1 images, but none has a label of its own name .*images/1\.png"):
        names(gta5(tmp_path))
    (tmp_path / "leftImg8bit/train/empty").mkdir(parents=True)
    with pytest.raises(FastudaError, match=r"leftImg8bit/train: holds no CITY/\*_leftImg8bit\.png"):
        names(Domain(layout="cityscapes", root=tmp_path))


def test_messages_about_globs(tmp_path: Path) -> None:
    touch(tmp_path, "images/1a.png", "images/a1.png", "labels/1.png")
    with pytest.raises(FastudaError, match=r"no file matches `images` = 'pictures/\*\.png'"):
        names(folder(tmp_path, images="pictures/*.png"), labelled=False)
    with pytest.raises(FastudaError, match="the recipe has no `labels` for this folder"):
        names(folder(tmp_path, images="images/*.png"))
    with pytest.raises(FastudaError, match="the recipe has no `val_images` for this folder"):
        names(folder(tmp_path, images="images/*.png"), split="val")
    with pytest.raises(FastudaError, match="`images` has 2 wildcards and `labels` 1"):
        names(folder(tmp_path, images="*/*.png", labels="labels/*.png"))
    found = find_samples(folder(tmp_path, images="images/*a*.png"), "train", labelled=False)
    assert found.twice == {"1": [tmp_path / "images/1a.png", tmp_path / "images/a1.png"]}


def test_mixed_suffixes_pair_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.jpg", "images/2.JPG", "images/3.jpeg", "images/4.png")
    touch(tmp_path, *(f"labels/{i}.png" for i in (1, 2, 3, 4)))
    for images in (
        "images/*.{jpg,jpeg,png}",
        ["images/*.jpg", "images/*.jpeg", "images/*.png"],
        "images/*",
        "images/*.*",
    ):
        domain = folder(tmp_path, images=images, labels="labels/*.png")
        assert names(domain) == ["1", "2", "3", "4"]
        assert find_samples(domain, "train", labelled=True).left_out() == LeftOut()


def test_images_under_a_suffix_that_the_glob_leaves_out_are_counted(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.jpg", "images/2.png", "images/3.jpeg", "labels/1.png", "labels/2.png")
    domain = folder(tmp_path, images="images/*.jpg", labels="labels/*.png")
    assert find_samples(domain, "train", labelled=False).left_out() == LeftOut(other_suffix=2)
    assert find_samples(domain, "train", labelled=True).left_out() == LeftOut(without_image=1, other_suffix=2)
    beside = folder(tmp_path, images="images/*.jpg", labels="images/*.png")
    assert find_samples(beside, "train", labelled=False).left_out() == LeftOut(other_suffix=1)


@pytest.mark.parametrize(
    ("images", "labels"),
    [("*.png", "*_mask.png"), ("*_img.png", "*.png"), ("*.png", "mask_*.png"), ("*", "*_mask.png"), ("*.jpg", "*.png")],
)
def test_masks_beside_images_in_one_folder(tmp_path: Path, images: str, labels: str) -> None:
    suffix = ".jpg" if images == "*.jpg" else ".png"
    for i in range(4):
        name = images.split(".")[0].replace("*", str(i)) if images != "*" else str(i)
        touch(tmp_path, f"{name}{suffix}", labels.replace("*", str(i)))
    domain = folder(tmp_path, images=images, labels=labels, val_images=images, val_labels=labels)
    for split in ("train", "val"):
        assert names(domain, split=split) == ["0", "1", "2", "3"]
    assert names(domain, labelled=False) == ["0", "1", "2", "3"]
    assert find_samples(domain, "train", labelled=True).left_out() == LeftOut()


def test_one_glob_for_images_and_labels_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "2.png")
    with pytest.raises(FastudaError, match=r"`images` and `labels` find the same files, such as .*1\.png"):
        names(folder(tmp_path, images="*.png", labels="*.png"))


@pytest.mark.parametrize("layout", ["gta5", "synthia", "cityscapes", "folder"])
def test_two_files_for_one_sample_are_a_fault_in_every_layout(tmp_path: Path, layout: str) -> None:
    places = {
        "gta5": ("images/{}", "labels/{}.png"),
        "synthia": ("RGB/{}", "GT/LABELS/{}.png"),
        "cityscapes": ("leftImg8bit/train/ulm/{}_leftImg8bit", "gtFine/train/ulm/{}_gtFine_labelIds.png"),
        "folder": ("rgb/{}", "ids/{}.png"),
    }
    image, label = places[layout]
    touch(tmp_path, image.format(1) + ".png", image.format(1) + ".jpg", image.format(2) + ".png")
    touch(tmp_path, label.format(1), label.format(2))
    globs = {"images": "rgb/*", "labels": "ids/*.png"} if layout == "folder" else {}
    domain = Domain.model_validate({"layout": layout, "root": tmp_path, **globs})
    for labelled in (True, False):
        found = find_samples(domain, "train", labelled=labelled)
        assert [sample.name.rpartition("/")[2] for sample in found.samples] == ["2"]
        assert found.left_out() == LeftOut(twice=1)
        assert {path.suffix for path in next(iter(found.twice.values()))} == {".png", ".jpg"}


def test_two_labels_for_one_sample_are_a_fault_too(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.png", "images/2.png", "labels/1.png", "labels/1.bmp", "labels/2.png")
    found = find_samples(folder(tmp_path, images="images/*", labels="labels/*"), "train", labelled=True)
    assert [sample.name for sample in found.samples] == ["2"]
    assert found.twice == {"1": [tmp_path / "labels/1.bmp", tmp_path / "labels/1.png"]}


def test_files_of_other_tools_are_no_faults(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{kind}/{i:05d}.png" for kind in ("images", "labels") for i in (1, 2, 3)))
    touch(tmp_path, *(f"labels/{i:05d}_labelTrainIds.png" for i in (1, 2, 3)), "labels/00001-copy.png")
    touch(tmp_path, "images/00002_thumb.png", "labels/00001.txt", "images/Thumbs.db", "labels/sample_stats.json")
    found = find_samples(gta5(tmp_path), "train", labelled=True)
    assert [sample.name for sample in found.samples] == ["00001", "00002", "00003"]
    assert found.left_out() == LeftOut(beside=5)
    assert find_samples(gta5(tmp_path), "train", labelled=False).left_out() == LeftOut(beside=1)


def test_a_number_that_begins_as_anothers_is_still_a_lonely_image(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.png", "images/1_2.png", "labels/1.png")
    found = find_samples(gta5(tmp_path), "train", labelled=True)
    assert found.without_label == [tmp_path / "images/1_2.png"]


def test_more_lonely_files_than_allowed_are_an_error(tmp_path: Path) -> None:
    touch(tmp_path, *(f"images/{i}.png" for i in range(20)), *(f"labels/{i}.png" for i in range(19)))
    found = find_samples(gta5(tmp_path), "train", labelled=True)
    found.require_partners(0.05, tmp_path)
    (tmp_path / "labels/0.png").unlink()
    found = find_samples(gta5(tmp_path), "train", labelled=True)
    with pytest.raises(FastudaError, match=r"2 of 20 images have no label of their name, such as .*max_unpaired=0\.11"):
        found.require_partners(0.05, tmp_path)
    found.require_partners(0.11, tmp_path)


def test_a_glob_that_finds_nothing_says_what_would(tmp_path: Path) -> None:
    touch(tmp_path, "Images/1.png", "rgb/1.jpeg", "rgb/2.jpeg")
    with pytest.raises(
        FastudaError, match=r"`images` = 'images/\*\.png', but 1 do when case does not matter.*Images/1"
    ):
        names(folder(tmp_path, images="images/*.png"), labelled=False)
    with pytest.raises(FastudaError, match=r"'rgb/\*\.jpg', but 2 do under another suffix, such as .*rgb/1\.jpeg"):
        names(folder(tmp_path, images="rgb/*.jpg"), labelled=False)
    with pytest.raises(FastudaError, match="no file matches `images` = 'a/\\*', 'b/\\*'"):
        names(folder(tmp_path, images=["a/*", "b/*"]), labelled=False)


def test_labels_that_lost_their_image_are_no_other_tools_files(tmp_path: Path) -> None:
    touch(tmp_path, "images/img.png", "labels/img.png", *(f"labels/img_{i}.png" for i in range(1, 10)))
    found = find_samples(gta5(tmp_path), "train", labelled=True)
    assert found.left_out() == LeftOut(without_image=9)


def test_masks_are_no_photographs_of_the_target(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{i}{ending}.png" for i in range(3) for ending in ("", "_label", "_seg", "_mask")))
    found = find_samples(folder(tmp_path, images="*.png"), "train", labelled=False)
    assert [sample.name for sample in found.samples] == ["0", "1", "2"]
    assert found.left_out() == LeftOut(beside=9)


def test_pictures_of_other_kinds_are_counted_in_the_known_layouts(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.png", "images/2.webp", "images/3.JFIF", "images/1.bmp", "labels/1.png")
    assert find_samples(gta5(tmp_path), "train", labelled=False).left_out() == LeftOut(other_suffix=2)
    city = "leftImg8bit/train/ulm"
    touch(tmp_path, f"{city}/1_leftImg8bit.png", f"{city}/2_leftImg8bit.JPG", f"{city}/3_leftImg8bit.jpeg")
    assert names(Domain(layout="cityscapes", root=tmp_path), labelled=False) == ["ulm/1", "ulm/2", "ulm/3"]


def test_a_name_with_a_hash_is_listed_as_it_is(tmp_path: Path) -> None:
    touch(tmp_path, "images/img.png", "images/img #2.png", "images/other.png")
    (tmp_path / "list.txt").write_text("img #2\n#img\n  # all\nother # the last\n")
    assert names(gta5(tmp_path, listing=tmp_path / "list.txt"), labelled=False) == ["img #2", "other"]


def test_one_name_in_two_spellings_of_an_umlaut(tmp_path: Path) -> None:
    touch(tmp_path, "images/\u00fc.png", "labels/u\u0308.png")
    assert names(gta5(tmp_path)) == ["\u00fc"]


def test_lists_and_roots_that_lead_nowhere(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.png", "images/1.jpg")
    (tmp_path / "list.txt").write_text("nope\n")
    with pytest.raises(FastudaError, match="lists 'nope', and no image has this name"):
        names(gta5(tmp_path, listing=tmp_path / "list.txt"), labelled=False)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(FastudaError, match="loop: no such folder"):
        names(gta5(tmp_path / "loop"))
    (tmp_path / "case/Images").mkdir(parents=True)
    with pytest.raises(FastudaError, match=r"no such folder \(Images is there: write it as images\)"):
        names(gta5(tmp_path / "case"))
