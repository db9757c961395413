"""The files of data sets that fastuda knows, under the releases' names, with others that lie beside them."""

from __future__ import annotations

from pathlib import Path

# By split: each sample's name, its image, and its label; then files that are no sample of either split.
ACDC_FILES = {
    split: [
        (f"{condition}/{frame}", f"rgb_anon/{condition}/{split}/{frame}_rgb_anon.png",
         f"gt/{condition}/{split}/{frame}_gt_labelIds.png")
        for condition, frame in frames
    ]
    for split, frames in (
        ("train", [("fog", "GOPR0475/GOPR0475_frame_000041"), ("night", "GOPR0351/GOPR0351_frame_000033"),
                   ("snow", "GP010122/GP010122_frame_000122")]),
        ("val", [("rain", "GOPR0402/GOPR0402_frame_000365")]),
    )
}  # fmt: skip
BDD100K_FILES = {
    "train": [
        (name, f"images/10k/train/{name}.jpg", f"labels/sem_seg/masks/train/{name}.png")
        for name in ("0a0a0b1a-7c39d841", "0a0ba96d-7859aaa6")
    ],
    "val": [
        ("7d2f7975-e0c1c5a7", "images/10k/val/7d2f7975-e0c1c5a7.jpg", "labels/sem_seg/masks/val/7d2f7975-e0c1c5a7.png")
    ],
}
MAPILLARY_FILES = {
    split: [(name, f"{folder}/images/{name}.jpg", f"{folder}/v1.2/labels/{name}.png") for name in names]
    for split, folder, names in (
        ("train", "training", ["-0C1J9CvgFP4BTVLXNeNZA", "00qclUcInksIYnm19b1Xfw"]),
        ("val", "validation", ["--BJs76vloEaiH-wppzWNA", "_1Gn_xkw7sa_i9GU4mkxxQ"]),
    )
}
IDD_FILES = {
    split: [
        (f"{place}/{frame}", f"leftImg8bit/{split}/{place}/{frame}_leftImg8bit.{suffix}",
         f"gtFine/{split}/{place}/{frame}_gtFine_labelcsTrainIds.png")
        for place, frame, suffix in frames
    ]
    for split, frames in (
        ("train", [("0", "005506", "png"), ("201", "frame0029", "jpg")]),
        ("val", [("119", "638495", "png"), ("203", "frame0779", "jpg")]),
    )
}  # fmt: skip
DARK_ZURICH_FILES = {
    split: [
        (f"{drive}/{drive}_frame_{i:06d}", f"rgb_anon/{split}/night/{drive}/{drive}_frame_{i:06d}_rgb_anon.png",
         f"gt/{split}/night/{drive}/{drive}_frame_{i:06d}_gt_labelIds.png")
        for i in frames
    ]
    for split, drive, frames in (("train", "GOPR0351", (71, 90)), ("val", "GOPR0356", (321, 324)))
}  # fmt: skip
FILES = {
    "acdc": ACDC_FILES, "bdd100k": BDD100K_FILES, "mapillary": MAPILLARY_FILES, "idd": IDD_FILES,
    "dark-zurich": DARK_ZURICH_FILES,
}  # fmt: skip
OTHERS = {
    "acdc": [
        "rgb_anon/fog/train_ref/GOPR0475/GOPR0475_frame_000041_rgb_ref_anon.png",
        "rgb_anon/fog/test/GOPR0478/GOPR0478_frame_000195_rgb_anon.png",
        "gt/fog/train/GOPR0475/GOPR0475_frame_000041_gt_labelColor.png",
        "gt/fog/train/GOPR0475/GOPR0475_frame_000041_gt_labelTrainIds.png",
        "gt/fog/train/GOPR0475/GOPR0475_frame_000041_gt_invIds.png",
        "gt/rain/val/GOPR0402/GOPR0402_frame_000365_gt_labelTrainIds.png",
        "gt/fog/train_ref/GOPR0475/GOPR0475_frame_000041_gt_ref_labelTrainIds.png",
    ],
    "bdd100k": [
        "images/10k/test/ac6d4f42-00000000.jpg",
        "images/100k/train/0000f77c-6257be58.jpg",
        "labels/sem_seg/colormaps/train/0a0a0b1a-7c39d841.png",
        "labels/drivable/masks/train/0a0a0b1a-7c39d841.png",
    ],
    "mapillary": [
        "training/v2.0/labels/-0C1J9CvgFP4BTVLXNeNZA.png",
        "training/v1.2/instances/-0C1J9CvgFP4BTVLXNeNZA.png",
        "testing/images/-0u7iFVHWWQ9UlUe7iESEA.jpg",
    ],
    "idd": [
        "leftImg8bit/test/0/000000_leftImg8bit.png",
        "gtFine/train/0/005506_gtFine_labelids.png",
        "gtFine/train/0/005506_gtFine_labellevel3Ids.png",
        "gtFine/train/0/005506_gtFine_labelColors.png",
        "gtFine/train/0/005506_gtFine_instancelevel3Ids.png",
        "gtFine/train_panoptic/0_005506_gtFine_panopticlevel3Ids.png",
    ],
    "dark-zurich": [
        "rgb_anon/train/day/GOPR0345/GOPR0345_frame_000001_rgb_anon.png",
        "rgb_anon/train/twilight/GOPR0347/GOPR0347_frame_000001_rgb_anon.png",
        "rgb_anon/val_ref/day/GOPR0356_ref/GOPR0356_frame_000321_ref_rgb_anon.png",
        "gt/val/night/GOPR0356/GOPR0356_frame_000321_gt_labelTrainIds.png",
        "gt/val/night/GOPR0356/GOPR0356_frame_000321_gt_labelColor.png",
    ],
}
KNOWN = list(FILES)


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
