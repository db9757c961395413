"""Layouts: for each data set that fastuda knows, how its files lie, what their values mean, and what is labelled.

A data set more is one record more at the end of this file; everything else asks the record. Places are paths below the
data set's folder, in which `{split}` is the split and any other part in braces a folder of any name; what these and
the last `*` stand for is the sample's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fastuda.classes import CITYSCAPES_19, CITYSCAPES_IDS, CITYSCAPES_TRAIN_IDS

Reader = Literal["values", "red"]
"""What of a label's pixels is the id: the grey value or palette index, or the red channel of 16-bit RGB."""
SPLIT = "{split}"


@dataclass(frozen=True)
class Files:
    """Where the files of one kind lie, and how their names end."""

    places: tuple[str, ...]
    """Alternatives, of which the first that is there is read: `leftImg8bit/{split}/{city}/*`."""
    endings: tuple[str, ...]
    """Of the files, whatever their case; the first that fits is no part of a sample's name."""


@dataclass(frozen=True)
class Labels(Files):
    """Label files of one kind, and what their values mean."""

    ids: Mapping[int, str]
    """Label value → class name, for the values that have a class."""
    num_ids: int
    """Values from 0 on that the data set knows, those without a class among them; 255 is ignored too."""
    meaning: str
    """What the values are, in words: `Cityscapes' ids 0-33`."""
    never_255: bool = False
    """Cityscapes' labelIds, in which the release has no 255: where train ids stand, somebody converted them."""


@dataclass(frozen=True)
class Layout:
    """How one data set lies on disk."""

    name: str
    """As recipes and commands call it."""
    title: str
    """As its owners call it."""
    expected: str
    """What has to lie in its folder, in words."""
    images: Files | None
    """None where the recipe's own globs say so."""
    labels: tuple[Labels, ...] = ()
    """The kinds of label files, the preferred one first; others serve samples without one of those before."""
    splits: Mapping[str, str] = field(default_factory=dict)
    """Split → its folder; a name that is not here is a folder's itself. Empty for a data set that is one whole."""
    labelled: tuple[str, ...] = ()
    """Those of `splits` that come with labels."""
    wrapped_in: str | None = None
    """A folder that may lie around everything."""
    reader: Reader = "values"
    """What of a label's pixels is the id."""

    @property
    def by_globs(self) -> bool:
        """Whether the recipe's globs and ids say what this record does for others."""
        return self.images is None

    @property
    def is_whole(self) -> bool:
        """Whether there are no splits: every image is labelled, for training and evaluation alike."""
        return self.images is not None and not self.splits

    def labels_of(self, file_name: str) -> Labels:
        """The kind of label file that a name belongs to, by its ending; the preferred one where none fits."""
        fitting = (kind for kind in self.labels if file_name.lower().endswith(tuple(map(str.lower, kind.endings))))
        return next(fitting, self.labels[0])


def one_of(names: list[str]) -> str:
    """`a, b or c`."""
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


_PICTURES = (".png", ".jpg", ".jpeg")
_TRAIN_VAL_TEST = {"train": "train", "val": "val", "test": "test"}


def _pictures(ending: str) -> tuple[str, ...]:
    return tuple(ending + suffix for suffix in _PICTURES)


def _label_ids(places: tuple[str, ...], ending: str, **more: bool) -> Labels:
    return Labels(places, (ending,), CITYSCAPES_IDS, 34, "Cityscapes' ids 0-33", **more)


def _train_ids(places: tuple[str, ...], *endings: str) -> Labels:
    return Labels(places, endings, CITYSCAPES_TRAIN_IDS, 19, "Cityscapes' train ids 0-18 and 255")


def _by_class(values: Mapping[str, tuple[int, ...]]) -> dict[int, str]:
    """Label value → class name, from class name → values."""
    return {value: name for name, several in values.items() for value in several}


GTA5 = Layout(
    "gta5",
    "GTA5",
    "images/00001.png … and labels/00001.png …",
    Files(("images/*",), _PICTURES),
    # Cityscapes' labelIds, and 34, a licence plate, ignored like every other.
    (Labels(("labels/*",), (".png",), CITYSCAPES_IDS, 35, "GTA5's ids 0-34", never_255=True),),
)

_SYNTHIA_TRAIN_IDS = {
    1: 10, 2: 2, 3: 0, 4: 1, 5: 4, 6: 8, 7: 5, 8: 13, 9: 7, 10: 11, 11: 18, 12: 17,
    15: 6, 16: 9, 17: 12, 18: 14, 19: 15, 20: 16, 21: 3,
}  # fmt: skip
SYNTHIA = Layout(
    "synthia",
    "SYNTHIA",
    "RGB/0000000.png … and GT/LABELS/0000000.png …, or RAND_CITYSCAPES/ with both",
    Files(("RGB/*",), _PICTURES),
    (
        Labels(
            ("GT/LABELS/*",),
            (".png",),
            {value: CITYSCAPES_19[train_id] for value, train_id in _SYNTHIA_TRAIN_IDS.items()},
            23,
            "SYNTHIA's ids 0-22",
        ),
    ),
    wrapped_in="RAND_CITYSCAPES",
    reader="red",
)

_GT_FINE = ("gtFine/{split}/{city}/*", "gtFine_trainvaltest/gtFine/{split}/{city}/*")
CITYSCAPES = Layout(
    "cityscapes",
    "Cityscapes",
    "leftImg8bit/SPLIT/CITY/*_leftImg8bit.png and gtFine/SPLIT/CITY/*_gtFine_labelIds.png, "
    "or leftImg8bit_trainvaltest/ and gtFine_trainvaltest/ with these",
    Files(
        ("leftImg8bit/{split}/{city}/*", "leftImg8bit_trainvaltest/leftImg8bit/{split}/{city}/*"),
        _pictures("_leftImg8bit"),
    ),
    # The official tools write train ids beside the labelIds. The test split's labels are kept back: those in its folder
    # are dummies.
    (
        _label_ids(_GT_FINE, "_gtFine_labelIds.png", never_255=True),
        _train_ids(_GT_FINE, "_gtFine_labelTrainIds.png"),
    ),
    _TRAIN_VAL_TEST,
    ("train", "val"),
)

_ACDC_GT = ("gt/{condition}/{split}/{sequence}/*", "gt_trainval/gt/{condition}/{split}/{sequence}/*")
ACDC = Layout(
    "acdc",
    "ACDC",
    "rgb_anon/CONDITION/SPLIT/SEQUENCE/*_rgb_anon.png and gt/CONDITION/SPLIT/SEQUENCE/*_gt_labelIds.png, "
    "CONDITION being fog, night, rain and snow, or rgb_anon_trainvaltest/ and gt_trainval/ with these",
    Files(
        (
            "rgb_anon/{condition}/{split}/{sequence}/*",
            "rgb_anon_trainvaltest/rgb_anon/{condition}/{split}/{sequence}/*",
        ),
        _pictures("_rgb_anon"),
    ),
    (_label_ids(_ACDC_GT, "_gt_labelIds.png"), _train_ids(_ACDC_GT, "_gt_labelTrainIds.png")),
    _TRAIN_VAL_TEST,
    ("train", "val"),
)

BDD100K = Layout(
    "bdd100k",
    "BDD100K",
    "images/10k/SPLIT/*.jpg and labels/sem_seg/masks/SPLIT/*.png, or those of older archives, seg/images/SPLIT/*.jpg "
    "and seg/labels/SPLIT/*_train_id.png",
    Files(("images/10k/{split}/*", "seg/images/{split}/*"), _PICTURES),
    (_train_ids(("labels/sem_seg/masks/{split}/*", "seg/labels/{split}/*"), "_train_id.png", ".png"),),
    _TRAIN_VAL_TEST,
    ("train", "val"),
    wrapped_in="bdd100k",
)

# As HRDA and those after it compare results on Vistas: crosswalks (8, 23), bridges (16) and the backs of signs (49) are
# ignored; manholes (41) and lane markings (24) are road, curbs (2) sidewalk, utility poles (47) poles.
_MAPILLARY_IDS = _by_class({
    "road": (13, 24, 41), "sidewalk": (2, 15), "building": (17,), "wall": (6,), "fence": (3,), "pole": (45, 47),
    "traffic light": (48,), "traffic sign": (50,), "vegetation": (30,), "terrain": (29,), "sky": (27,),
    "person": (19,), "rider": (20, 21, 22), "car": (55,), "truck": (61,), "bus": (54,), "train": (58,),
    "motorcycle": (57,), "bicycle": (52,),
})  # fmt: skip
MAPILLARY = Layout(
    "mapillary",
    "Mapillary Vistas",
    "training/images/*.jpg and training/v1.2/labels/*.png (training/labels/*.png in older archives), and validation/ "
    "with the same",
    Files(("{split}/images/*",), _PICTURES),
    (
        Labels(
            ("{split}/v1.2/labels/*", "{split}/labels/*"),
            (".png",),
            _MAPILLARY_IDS,
            66,
            "Mapillary Vistas' v1.2 ids 0-65",
        ),
    ),
    {"train": "training", "val": "validation", "test": "testing"},
    ("train", "val"),
)

# Classes are those to which AutoNUE's table gives a Cityscapes train id. Some level3Ids hold more than their class, and
# the other kinds ignore that: 3 is terrain and rail tracks, 4 person and animals, 20 pole and groups of poles, 25 sky
# and `fallback background`; trains are among the other vehicles of 12. So the kinds that tell these apart come first.
_IDD_LEVEL3_IDS = _by_class({
    "road": (0,), "sidewalk": (2,), "building": (22,), "wall": (14,), "fence": (15,), "pole": (20,),
    "traffic light": (19,), "traffic sign": (18,), "vegetation": (24,), "terrain": (3,), "sky": (25,), "person": (4,),
    "rider": (5,), "car": (9,), "truck": (10,), "bus": (11,), "motorcycle": (6,), "bicycle": (7,),
})  # fmt: skip
_IDD_IDS = _by_class({
    "road": (0,), "sidewalk": (3,), "building": (29,), "wall": (20,), "fence": (21,), "pole": (26,),
    "traffic light": (25,), "traffic sign": (24,), "vegetation": (32,), "terrain": (5,), "sky": (33,), "person": (6,),
    "rider": (8,), "car": (12,), "truck": (13,), "bus": (14,), "train": (17,), "motorcycle": (9,), "bicycle": (10,),
})  # fmt: skip
_IDD_GT = ("gtFine/{split}/{sequence}/*",)
IDD = Layout(
    "idd",
    "IDD",
    "leftImg8bit/SPLIT/SEQUENCE/*_leftImg8bit.png (or .jpg) and gtFine/SPLIT/SEQUENCE/*_gtFine_labelcsTrainIds.png "
    "(or *_labelids.png, *_labellevel3Ids.png), which AutoNUE's createLabels.py makes of the polygons",
    Files(("leftImg8bit/{split}/{sequence}/*",), _pictures("_leftImg8bit")),
    (
        _train_ids(_IDD_GT, "_gtFine_labelcsTrainIds.png"),
        Labels(
            _IDD_GT,
            ("_gtFine_labelids.png",),
            _IDD_IDS,
            40,
            "IDD's ids 0-39",
        ),
        Labels(
            _IDD_GT,
            ("_gtFine_labellevel3Ids.png",),
            _IDD_LEVEL3_IDS,
            26,
            "IDD's level3Ids 0-25 and 255",
        ),
    ),
    _TRAIN_VAL_TEST,
    ("train", "val"),
)

_DARK_ZURICH_GT = ("gt/{split}/{sequence}/*", "Dark_Zurich_val_anon/gt/{split}/{sequence}/*")
DARK_ZURICH = Layout(
    "dark-zurich",
    "Dark Zurich",
    "rgb_anon/SPLIT/night/SEQUENCE/*_rgb_anon.png and gt/val/night/SEQUENCE/*_gt_labelIds.png, "
    "or Dark_Zurich_train_anon/, Dark_Zurich_val_anon/ and Dark_Zurich_test_anon/ with these",
    Files(
        (
            "rgb_anon/{split}/{sequence}/*",
            "Dark_Zurich_train_anon/rgb_anon/{split}/{sequence}/*",
            "Dark_Zurich_val_anon/rgb_anon/{split}/{sequence}/*",
            "Dark_Zurich_test_anon/rgb_anon/{split}/{sequence}/*",
        ),
        _pictures("_rgb_anon"),
    ),
    (_label_ids(_DARK_ZURICH_GT, "_gt_labelIds.png"), _train_ids(_DARK_ZURICH_GT, "_gt_labelTrainIds.png")),
    {"train": "train/night", "val": "val/night", "test": "test/night"},
    ("val",),
)

FOLDER = Layout("folder", "a folder of your own", "the files of the recipe's globs", None)

LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        GTA5,
        SYNTHIA,
        CITYSCAPES,
        ACDC,
        BDD100K,
        MAPILLARY,
        IDD,
        DARK_ZURICH,
        FOLDER,
    )
}
