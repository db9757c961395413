"""Class lists and id tables, against the protocol's numbers typed out here."""

from __future__ import annotations

import numpy as np
import pytest

from fastuda.classes import (
    CITYSCAPES_13,
    CITYSCAPES_16,
    CITYSCAPES_19,
    CITYSCAPES_IDS,
    CITYSCAPES_TRAIN_IDS,
    ClassSet,
    known_values,
)
from fastuda.errors import UsageError
from fastuda.layouts import LAYOUTS

GTA5_IDS, SYNTHIA_IDS = (dict(LAYOUTS[name].labels[0].ids) for name in ("gta5", "synthia"))

NAMES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
GTA5 = "7:0 8:1 11:2 12:3 13:4 17:5 19:6 20:7 21:8 22:9 23:10 24:11 25:12 26:13 27:14 28:15 31:16 32:17 33:18"
SYNTHIA = "1:10 2:2 3:0 4:1 5:4 6:8 7:5 8:13 9:7 10:11 11:18 12:17 15:6 16:9 17:12 18:14 19:15 20:16 21:3"
SIXTEEN = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18)
THIRTEEN = (0, 1, 2, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18)
COLOURS = """
    804080 f423e8 464646 66669c be9999 999999 faaa1e dcdc00 6b8e23 98fb98
    4682b4 dc143c ff0000 00008e 000046 003c64 005064 0000e6 770b20
"""


def table(text: str) -> dict[int, int]:
    return {int(label_id): int(train_id) for label_id, train_id in (pair.split(":") for pair in text.split())}


@pytest.mark.parametrize(
    ("ids", "protocol"), [(GTA5_IDS, GTA5), (CITYSCAPES_IDS, GTA5), (SYNTHIA_IDS, SYNTHIA)], ids=["gta5", "cs", "syn"]
)
def test_every_label_id_becomes_the_protocols_train_id_and_all_else_is_ignored(
    ids: dict[int, str], protocol: str
) -> None:
    found = ClassSet.of(CITYSCAPES_19).train_id_table(ids)
    assert found.dtype == np.uint8
    assert found.tolist() == [table(protocol).get(value, 255) for value in range(256)]


def test_gta5s_licence_plate_is_ignored() -> None:
    assert ClassSet.of(CITYSCAPES_19).train_id_table(GTA5_IDS)[34] == 255


def test_cityscapes_train_ids_stand_for_themselves() -> None:
    found = ClassSet.of(CITYSCAPES_19).train_id_table(CITYSCAPES_TRAIN_IDS)
    assert found.tolist() == [*range(19), *[255] * 237]


def test_the_19_16_and_13_classes_are_the_protocols() -> None:
    assert CITYSCAPES_19 == NAMES
    assert tuple(NAMES[i] for i in SIXTEEN) == CITYSCAPES_16
    assert tuple(NAMES[i] for i in THIRTEEN) == CITYSCAPES_13


@pytest.mark.parametrize(("names", "kept"), [(CITYSCAPES_16, SIXTEEN), (CITYSCAPES_13, THIRTEEN)])
@pytest.mark.parametrize(("ids", "protocol"), [(GTA5_IDS, GTA5), (SYNTHIA_IDS, SYNTHIA)], ids=["gta5", "synthia"])
def test_fewer_classes_are_numbered_without_gaps_and_the_rest_is_ignored(
    names: tuple[str, ...], kept: tuple[int, ...], ids: dict[int, str], protocol: str
) -> None:
    expected = {label_id: kept.index(train_id) for label_id, train_id in table(protocol).items() if train_id in kept}
    found = ClassSet.of(names).train_id_table(ids)
    assert found.tolist() == [expected.get(value, 255) for value in range(256)]


def test_several_label_ids_may_stand_for_one_class() -> None:
    found = ClassSet.of(("ground", "rest")).train_id_table({7: "ground", 8: "ground", 9: "rest", 10: "ignore"})
    assert found[[7, 8, 9, 10, 11]].tolist() == [0, 0, 1, 255, 255]


def test_a_table_may_be_as_large_as_16_bit_labels() -> None:
    found = ClassSet.of(("a",)).train_id_table({65535: "a"}, size=65536)
    assert found.shape == (65536,)
    assert np.flatnonzero(found != 255).tolist() == [65535]


@pytest.mark.parametrize("label_id", [256, -1])
def test_a_label_id_outside_the_table_is_an_error(label_id: int) -> None:
    with pytest.raises(ValueError, match=rf"label id {label_id} \(road\) is outside 0\.\.255"):
        ClassSet.of(("road",)).train_id_table({label_id: "road"})


def test_predictions_of_cityscapes_classes_are_written_as_its_label_ids() -> None:
    back = {train_id: label_id for label_id, train_id in table(GTA5).items()}
    found = ClassSet.of(CITYSCAPES_19).value_table("label-ids")
    assert found.dtype == np.uint8
    assert found.tolist() == [back[i] for i in range(19)] + [255] * 237
    assert ClassSet.of(CITYSCAPES_13).value_table("label-ids")[:13].tolist() == [back[i] for i in THIRTEEN]


def test_predictions_of_foreign_classes_keep_their_train_ids() -> None:
    assert ClassSet.of(("water", "land", "ice")).value_table("label-ids")[:4].tolist() == [0, 1, 2, 255]


def test_a_foreign_class_among_cityscapes_own_gets_a_free_id() -> None:
    assert ClassSet.of(("road", "water", "car", "ice")).label_ids() == {"road": 7, "water": 35, "car": 26, "ice": 36}


@pytest.mark.parametrize("own", [1, 19, 220, 240, 253])
def test_every_class_has_a_value_of_its_own_and_none_is_unlabelled_or_ignored(own: int) -> None:
    names = ("bicycle", *(f"own {i}" for i in range(own)))
    values = list(ClassSet.of(names).label_ids().values())
    assert len(set(values)) == len(names)
    assert not {0, 255} & set(values)
    assert values[0] == 33


def test_train_ids_as_values_are_the_order_of_the_list() -> None:
    found = ClassSet.of(("car", "water", "road")).value_table("train-ids")
    assert found[:4].tolist() == [0, 1, 2, 255]


@pytest.mark.parametrize(("name", "near"), [("label_ids", "label-ids"), ("trainids", "train-ids"), ("colours", "")])
def test_another_kind_of_values_is_refused_naming_both_and_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UsageError) as caught:
        known_values(name)
    meant = f"; did you mean {near}?" if near else ""
    assert str(caught.value) == f"values {name}: label-ids or train-ids{meant}"
    assert [known_values("label-ids"), known_values("train-ids")] == ["label-ids", "train-ids"]


def test_known_classes_have_cityscapes_colours() -> None:
    expected = [tuple(bytes.fromhex(colour)) for colour in COLOURS.split()]
    assert list(ClassSet.of(CITYSCAPES_19).palette) == expected
    assert ClassSet.of(("bicycle", "road")).palette == (expected[18], expected[0])


def test_foreign_classes_have_colours_that_differ() -> None:
    palette = ClassSet.of(tuple(f"class {i}" for i in range(19))).palette
    assert len(set(palette)) == 19
    assert all(0 <= channel <= 255 for colour in palette for channel in colour)


def test_the_colour_table_is_black_where_no_class_is() -> None:
    colours = ClassSet.of(("a", "b"), ((1, 2, 3), (4, 5, 6))).colour_table()
    assert colours.dtype == np.uint8
    assert colours[:2].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert not colours[2:].any()


def test_a_class_list_without_names_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one name"):
        ClassSet.of(())


def test_repeated_names_are_named() -> None:
    with pytest.raises(ValueError, match="listed twice: car, road"):
        ClassSet.of(("road", "car", "sky", "road", "car"))


def test_a_palette_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="3 class names but 2 palette colours"):
        ClassSet.of(("a", "b", "c"), ((0, 0, 0), (1, 1, 1)))


def test_as_many_classes_fit_as_8_bits_leave_beside_the_ignored() -> None:
    names = tuple(map(str, range(255)))
    assert len(ClassSet.of(names[:254])) == 254
    with pytest.raises(ValueError, match="255 classes; labels are 8-bit, so at most 254 fit"):
        ClassSet.of(names)


MERGED = {"sky": ("road",), "car": ("truck", "bus")}


def test_merged_names_count_as_their_class_and_what_is_neither_is_ignored() -> None:
    classes = ClassSet.of(("car", "sky", "person"), merged=MERGED)
    found = classes.train_id_table({1: "truck", 2: "car", 3: "bus", 4: "road", 5: "sky", 6: "rider", 7: "person"})
    assert found[:9].tolist() == [255, 0, 0, 0, 1, 1, 255, 2, 255]
    assert len(classes) == 3


@pytest.mark.parametrize(
    ("merged", "message"),
    [
        ({"cars": ("truck",)}, "merged names no class of the list: cars; did you mean car\\?"),
        ({"sky": ("car",)}, "car is a class of its own: leave it out of the names, or of merged.sky"),
        ({"sky": ("road", "wall"), "car": ("truck", "wall")}, "wall is merged twice, into sky and into car"),
    ],
)
def test_what_cannot_be_merged_is_refused_by_name(merged: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassSet.of(("car", "sky"), merged=merged)
