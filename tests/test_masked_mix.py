"""masked_mix and normalise on drawings small enough to check by eye.

Label maps are drawn with a digit a class and `.` for 255; images with a letter for where each pixel
comes from: `s` and `S` the weak and strong source crop, `t` and `T` the weak and strong target crop.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from drawings import label_map
from torch import Tensor

from fastuda_kernels.masked_mix import MixedCrops, Normalisation, masked_mix, normalise

AS_IT_IS = Normalisation(mean=(0.0, 0.0, 0.0), scale=(1.0, 1.0, 1.0), bgr=False)
LETTERS = "sStT"


def mask_map(*rows: str) -> Tensor:
    return torch.tensor([[cell == "#" for cell in row] for row in rows])[None]


def crop_of(letter: str, height: int, width: int) -> Tensor:
    return torch.full((1, height, width, 3), LETTERS.index(letter), dtype=torch.uint8)


def drawn(image: Tensor) -> list[str]:
    """The letters of a mixed image [1, 3, H, W] in which all channels agree."""
    assert torch.equal(image[0, 0], image[0, 1])
    assert torch.equal(image[0, 0], image[0, 2])
    return ["".join(LETTERS[int(value)] for value in row) for row in image[0, 0]]


def as_rows(labels: Tensor) -> list[str]:
    return ["".join("." if value == 255 else str(int(value)) for value in row) for row in labels[0]]


def as_mask(mask: Tensor | None) -> list[str]:
    assert mask is not None
    return ["".join(".#"[int(value)] for value in row) for row in mask[0]]


SOURCE_LABEL = label_map("0011", "0011", "..22", "..22")
PSEUDO_LABEL = label_map("3333", "3333", "4444", "4444")
CONFIDENT = mask_map("#.#.", "#.#.", "#.#.", "....")


def mix(
    source_label: Tensor = SOURCE_LABEL,
    pseudo_label: Tensor = PSEUDO_LABEL,
    confident: Tensor = CONFIDENT,
    classes: tuple[int, ...] | None = (1,),
    **settings: Any,
) -> MixedCrops:
    """One mix of crops that are one letter each; confidence is 0.96 where `confident`, else 0.95 = the threshold."""
    height, width = source_label.shape[1:]
    chosen = None
    if classes is not None:
        chosen = torch.zeros(1, max(5, *classes, 0) + 1, dtype=torch.bool)
        chosen[0, list(classes)] = True
    return masked_mix(
        *(crop_of(letter, height, width) for letter in LETTERS),
        source_label,
        pseudo_label,
        torch.where(confident, 0.96, torch.tensor(0.95)),
        chosen,
        normalisation=settings.pop("normalisation", AS_IT_IS),
        confidence_threshold=float(torch.tensor(0.95)),
        **settings,
    )


def test_weak_source_pixels_are_pasted_into_both_target_views() -> None:
    mixed = mix()
    assert drawn(mixed.weak) == ["ttss", "ttss", "tttt", "tttt"]
    assert drawn(mixed.strong) == ["TTss", "TTss", "TTTT", "TTTT"]
    assert as_mask(mixed.pasted) == ["..##", "..##", "....", "...."]


def test_mixed_label_is_the_source_where_pasted_and_the_pseudo_label_at_any_confidence_elsewhere() -> None:
    assert as_rows(mix().label_st) == ["3311", "3311", "4444", "4444"]


def test_several_classes_are_pasted_together() -> None:
    assert drawn(mix(classes=(0, 2)).weak) == ["sstt", "sstt", "ttss", "ttss"]


def test_ignored_source_pixels_are_never_pasted() -> None:
    mixed = mix(classes=(0, 1, 2, 3, 4))
    assert drawn(mixed.weak) == ["ssss", "ssss", "ttss", "ttss"]
    assert as_rows(mixed.label_st) == ["0011", "0011", "4422", "4422"]


def test_no_chosen_class_leaves_the_target_as_it_is() -> None:
    mixed = mix(classes=())
    assert drawn(mixed.weak) == ["tttt"] * 4
    assert drawn(mixed.strong) == ["TTTT"] * 4
    assert as_rows(mixed.label_st) == as_rows(PSEUDO_LABEL)


def test_confident_strong_target_pixels_go_onto_the_strong_source_crop() -> None:
    # A confidence of exactly the threshold is not above it.
    assert drawn(mix().hts) == ["TSTS", "TSTS", "TSTS", "SSSS"]


def test_htcm_label_is_the_pseudo_label_where_confident_and_the_source_elsewhere() -> None:
    assert as_rows(mix().label_hts) == ["3031", "3031", "4.42", "..22"]


def test_keep_pasted_inside_shows_the_weak_source_where_both_masks_meet() -> None:
    mixed = mix(keep_pasted="inside")
    assert drawn(mixed.hts) == ["TSsS", "TSsS", "TSTS", "SSSS"]
    # The released label is the prediction there, not the source's (protocol row 10).
    assert as_rows(mixed.label_hts) == ["3031", "3031", "4.42", "..22"]


def test_keep_pasted_everywhere_shows_the_weak_source_in_the_whole_paste_mask() -> None:
    mixed = mix(keep_pasted="everywhere")
    assert drawn(mixed.hts) == ["TSss", "TSss", "TSTS", "SSSS"]
    assert as_rows(mixed.label_hts) == ["3011", "3011", "4.42", "..22"]


def test_keep_pasted_does_not_touch_the_class_mixed_views() -> None:
    for keep in ("inside", "everywhere"):
        assert drawn(mix(keep_pasted=keep).strong) == drawn(mix().strong)


def test_htcm_can_take_other_target_labels_than_cmix() -> None:
    mixed = mix(htcm_label=label_map("2222", "2222", "2222", "2222"))
    assert as_rows(mixed.label_hts) == ["2021", "2021", "2.22", "..22"]
    assert as_rows(mixed.label_st) == ["3311", "3311", "4444", "4444"]


def test_confident_label_ignores_unconfident_target_pixels_only() -> None:
    assert as_rows(mix().label_confident) == ["3.11", "3.11", "4.4.", "...."]


def test_auxiliary_label_differs_from_the_main_one_only_off_the_paste() -> None:
    mixed = mix(auxiliary_pseudo_label=label_map("0000", "0000", "0000", "0000"))
    assert as_rows(mixed.label_auxiliary) == ["0011", "0011", "0000", "0000"]
    assert as_rows(mixed.label_st) == ["3311", "3311", "4444", "4444"]


def test_auxiliary_label_is_the_main_one_without_labels_of_its_own() -> None:
    mixed = mix()
    assert torch.equal(mixed.label_auxiliary, mixed.label_st)


PASTE = mask_map(".##.", "....", "##..", "...#")


@pytest.mark.parametrize("paste_mask", [PASTE, 3 * PASTE.to(torch.uint8), 255 * PASTE.to(torch.uint8)])
def test_a_paste_mask_takes_the_place_of_the_classes(paste_mask: Tensor) -> None:
    mixed = mix(classes=None, paste_mask=paste_mask)
    assert drawn(mixed.weak) == ["tsst", "tttt", "sstt", "ttts"]
    assert drawn(mixed.strong) == ["TssT", "TTTT", "ssTT", "TTTs"]
    assert mixed.pasted.dtype == torch.bool
    assert as_mask(mixed.pasted) == as_mask(PASTE)
    # Ignored pixels under the mask are pasted too, and stay ignored at any confidence.
    assert as_rows(mixed.label_st) == ["3013", "3333", "..44", "4442"]
    assert as_rows(mixed.label_confident) == ["301.", "3.3.", "..4.", "...2"]
    assert drawn(mixed.hts) == ["TSTS", "TSTS", "TSTS", "SSSS"]


def test_a_paste_mask_is_kept_and_labelled_in_x_hts_as_the_classes_are() -> None:
    inside, everywhere = (mix(classes=None, paste_mask=PASTE, keep_pasted=keep) for keep in ("inside", "everywhere"))
    assert drawn(inside.hts) == ["TSsS", "TSTS", "sSTS", "SSSS"]
    assert as_rows(inside.label_hts) == ["3031", "3031", "4.42", "..22"]
    assert drawn(everywhere.hts) == ["TssS", "TSTS", "ssTS", "SSSs"]
    assert as_rows(everywhere.label_hts) == ["3011", "3031", "..42", "..22"]


@pytest.mark.parametrize("keep", ["nowhere", "inside", "everywhere"])
def test_the_paste_mask_of_a_class_gives_what_the_class_gives(keep: str) -> None:
    settings: dict[str, Any] = {"keep_pasted": keep, "bands": True, "auxiliary_pseudo_label": PSEUDO_LABEL // 2}
    by_class = mix(**settings)
    for paste_mask in (by_class.pasted, by_class.pasted.to(torch.uint8)):
        by_pixel = mix(classes=None, paste_mask=paste_mask, **settings)
        for name, ours, expected in zip(MixedCrops._fields, by_pixel, by_class, strict=True):
            assert ours is not None
            assert expected is not None
            assert torch.equal(ours, expected), name


def test_the_band_of_a_paste_mask_is_around_the_mask_whatever_the_labels() -> None:
    labels = label_map(*["012345"] * 6)
    mixed = mix(labels, labels, SQUARE & False, classes=None, paste_mask=SQUARE, bands=True)
    assert as_mask(mixed.band_st) == ["......", "......", "..###.", "..#.#.", "..###.", "......"]


def test_images_of_a_batch_do_not_mix_with_each_other() -> None:
    labels = torch.cat([SOURCE_LABEL, label_map("2211", "2211", "1111", "1111")])
    chosen = torch.tensor([[False, True, False], [False, False, True]])
    mixed = masked_mix(
        *(crop_of(letter, 4, 4).repeat(2, 1, 1, 1) for letter in LETTERS),
        labels,
        PSEUDO_LABEL.repeat(2, 1, 1),
        torch.zeros(2, 4, 4),
        chosen,
        normalisation=AS_IT_IS,
        confidence_threshold=0.5,
    )
    assert drawn(mixed.weak[:1]) == ["ttss", "ttss", "tttt", "tttt"]
    assert drawn(mixed.weak[1:]) == ["sstt", "sstt", "tttt", "tttt"]


SQUARE = mask_map("......", "......", "..##..", "..##..", "......", "......")


def test_band_of_a_square_is_its_dilation_less_its_erosion() -> None:
    # A window reaches one pixel up and left: the square grows down and right, and keeps its last pixel.
    labels = label_map("000000", "000000", "001100", "001100", "000000", "000000")
    mixed = mix(labels, labels, SQUARE & False, bands=True)
    assert as_mask(mixed.pasted) == as_mask(SQUARE)
    assert as_mask(mixed.band_st) == ["......", "......", "..###.", "..#.#.", "..###.", "......"]


def test_band_around_confident_pixels_leaves_out_the_paste() -> None:
    labels = label_map(*["000100"] * 6)
    mixed = mix(labels, labels, SQUARE, bands=True)
    assert as_mask(mixed.band_hts) == ["......", "......", "..#.#.", "..#.#.", "..#.#.", "......"]


def test_a_mask_that_reaches_the_border_has_no_band_there() -> None:
    labels = label_map("1110", "1110", "0000", "0000")
    mixed = mix(labels, labels, mask_map(*["####"] * 4), bands=True)
    assert as_mask(mixed.band_st) == ["...#", "...#", "####", "...."]
    assert as_mask(mixed.band_hts) == ["...."] * 4


def test_bands_are_only_made_when_asked_for() -> None:
    assert mix().band_st is None
    assert mix().band_hts is None


def test_rgb_pixels_are_normalised_by_hand() -> None:
    pixel = torch.tensor([[[[10, 20, 40]]]], dtype=torch.uint8)
    values = normalise(pixel, Normalisation(mean=(1.0, 2.0, 3.0), scale=(0.5, 2.0, 1.0), bgr=False))
    assert values.dtype == torch.float32
    assert values.flatten().tolist() == [4.5, 36.0, 37.0]


def test_bgr_swaps_the_channels_before_mean_and_scale() -> None:
    pixel = torch.tensor([[[[10, 20, 40]]]], dtype=torch.uint8)
    values = normalise(pixel, Normalisation(mean=(1.0, 2.0, 3.0), scale=(0.5, 2.0, 1.0), bgr=True))
    assert values.flatten().tolist() == [19.5, 36.0, 7.0]


def test_normalised_images_are_channels_last_and_of_the_dtype_asked_for() -> None:
    images = torch.zeros(2, 4, 6, 3, dtype=torch.uint8)
    values = normalise(images, AS_IT_IS._replace(dtype=torch.bfloat16))
    assert values.shape == (2, 3, 4, 6)
    assert values.dtype == torch.bfloat16
    assert values.is_contiguous(memory_format=torch.channels_last)


def test_mixed_images_are_normalised_channels_last_and_labels_stay_uint8() -> None:
    mixed = mix(normalisation=Normalisation(mean=(1.0, 1.0, 1.0), scale=(2.0, 2.0, 2.0), bgr=False))
    for image, letter in ((mixed.weak, "t"), (mixed.strong, "T"), (mixed.hts, "T")):
        assert image.is_contiguous(memory_format=torch.channels_last)
        assert image[0, :, 0, 0].tolist() == [(LETTERS.index(letter) - 1) * 2.0] * 3
    for labels in (mixed.label_st, mixed.label_hts, mixed.label_confident, mixed.label_auxiliary):
        assert labels.dtype == torch.uint8


def test_ignored_pixels_that_are_chosen_are_pasted_and_stay_ignored() -> None:
    mixed = mix(classes=(255,))
    assert drawn(mixed.weak) == ["tttt", "tttt", "sstt", "sstt"]
    assert as_rows(mixed.label_st) == ["3333", "3333", "..44", "..44"]
    assert as_rows(mixed.label_confident) == ["3.3.", "3.3.", "..4.", "...."]


def test_messages_name_the_argument_and_what_came() -> None:
    with pytest.raises(ValueError, match=r"pseudo_label must have shape \[1, 4, 4\], got \[1, 3, 4\]"):
        mix(pseudo_label=PSEUDO_LABEL[:, :3])
    with pytest.raises(TypeError, match=r"source_label must be torch\.uint8, got torch\.int64"):
        mix(SOURCE_LABEL.long())
    with pytest.raises(ValueError, match=r"auxiliary_pseudo_label must have shape \[1, 4, 4\], got \[1, 4, 3\]"):
        mix(auxiliary_pseudo_label=PSEUDO_LABEL[:, :, :3])
    with pytest.raises(ValueError, match=r"paste_mask must have shape \[1, 4, 4\], got \[1, 4, 3\]"):
        mix(classes=None, paste_mask=PASTE[:, :, :3])
    with pytest.raises(TypeError, match=r"paste_mask must be torch\.bool or torch\.uint8, got torch\.float32"):
        mix(classes=None, paste_mask=PASTE.float())
    with pytest.raises(ValueError, match="chosen or paste_mask says what is pasted: give one of them, got both"):
        mix(paste_mask=PASTE)
    with pytest.raises(ValueError, match="give one of them, got neither"):
        mix(classes=None)
    with pytest.raises(ValueError, match=r"keep_pasted must be .*, got 'outside'"):
        mix(keep_pasted="outside")
    with pytest.raises(ValueError, match=r"images must have shape \[any, any, any, 3\], got \[1, 3, 4, 4\]"):
        normalise(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), AS_IT_IS)
