"""Which mixed images an iteration makes, what the network sees of them, and with which labels, recipe by recipe.

The source crop's weak and strong pixels have the values 10 and 20, the target's 30 and 40. The
network is a stub: it takes note of its input and is sure of the class that the test gives it.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fastuda.classes import IGNORE_INDEX
from fastuda.data.loading.batch import DomainBatch
from fastuda.method.draws import Draws
from fastuda.method.mixing import mixed_views
from fastuda.method.pseudo_labels import PseudoLabels, label_crops
from fastuda.method.views import MixedViews
from fastuda.model.passes import Passes
from fastuda.model.segmenter import Outputs
from fastuda.recipe.file import load_recipe
from fastuda_kernels.masked_mix import Normalisation

AS_IT_IS = Passes(Normalisation(mean=(0.0, 0.0, 0.0), scale=(1.0, 1.0, 1.0), bgr=False), None)
NUM_CLASSES = 19
SIZE = 4


class Stub:
    """A network that notes the images it is given, and says `main` and `auxiliary` everywhere.

    With probability p, one for all columns or one each.
    """

    align_corners = True

    def __init__(self, main: int = 7, auxiliary: int = 7, p: float | list[float] = 0.99) -> None:
        self.seen: list[Tensor] = []
        sure = torch.tensor(p)
        self._logits = Outputs(self._says(main, sure), self._says(auxiliary, torch.full_like(sure, 0.999)))

    def __call__(self, images: Tensor) -> Outputs:
        self.seen.append(images)
        return self._logits

    def modules(self) -> list[torch.nn.Module]:
        return []

    @staticmethod
    def _says(label: int, p: Tensor) -> Tensor:
        probability = ((1 - p) / (NUM_CLASSES - 1)).reshape(1, 1, 1, -1).repeat(1, NUM_CLASSES, 1, 1)
        probability[:, label] = p
        return probability.log()


def drawn(image: Tensor) -> list[list[int]]:
    """The first channel's values."""
    return image[0, 0].int().tolist()


def rows(*values: float) -> list[list[float]]:
    """A map of SIZE rows that are all alike."""
    return [list(values)] * SIZE


def label_rows(*values: int) -> Tensor:
    return torch.tensor([rows(*values)], dtype=torch.uint8)


def crop(value: int) -> Tensor:
    return torch.full((1, SIZE, SIZE, 3), value, dtype=torch.uint8)


# Source classes by column: 8, 9, 8, 9, of which 9 has the smaller key. Target: class 3, confident in columns 0 and 1.
KEYS = torch.linspace(1, 0.1, NUM_CLASSES)[None]
SOURCE = DomainBatch(None, None, crop(10), crop(20), label_rows(8, 9, 8, 9), torch.zeros(1, 4), KEYS, [])
TARGET = DomainBatch(None, None, crop(30), crop(40), None, torch.zeros(1, 4), KEYS, [])
PSEUDO = PseudoLabels(
    label_rows(3, 3, 3, 3),
    torch.tensor([rows(1, 1, 0, 0)], dtype=torch.float32),
    label_rows(5, 5, 5, 5),
)


DRAWS = Draws(0, torch.zeros((), dtype=torch.int64))


def views_of(
    recipe: str, *settings: str, stub: Stub | None = None, pseudo: PseudoLabels = PSEUDO
) -> tuple[MixedViews, list[list[list[int]]]]:
    """The views, and what the network saw, in order."""
    network: Any = Stub() if stub is None else stub
    views = mixed_views(network, SOURCE, TARGET, pseudo, load_recipe(recipe, settings), AS_IT_IS, DRAWS)
    return views, [drawn(images) for images in network.seen]


WEAK = rows(30, 10, 30, 10)
STRONG = rows(40, 10, 40, 10)
HTS = rows(40, 40, 20, 20)

# The released recipe but for its class choice, so that it pastes the same class as the others.
RELEASED = ("gta2cs-released", "mix.off_by_one=false")


def test_the_network_sees_the_strong_the_weak_and_the_htcm_view() -> None:
    _, seen = views_of("gta2cs")
    assert seen == [STRONG, WEAK, HTS]


def test_labels_of_the_default_recipe() -> None:
    views, _ = views_of("gta2cs")
    assert views.st.label_st[0].tolist() == rows(3, 9, 3, 9)
    assert views.hts.label_hts[0].tolist() == rows(3, 3, 8, 9)
    assert views.hts.label_confident[0].tolist() == rows(3, 9, 255, 9)


def test_the_auxiliary_head_learns_the_two_head_average_off_the_paste() -> None:
    views, _ = views_of("gta2cs")
    assert views.st_auxiliary_label[0].tolist() == rows(5, 9, 5, 9)


def test_auxiliary_labels_from_the_prediction_are_the_weak_views_own_on_every_pixel() -> None:
    # The auxiliary head is surer of class 6 than the main head of class 7, so their average says 6.
    views, _ = views_of("gta2cs", 'auxiliary.labels="prediction"', stub=Stub(main=7, auxiliary=6))
    assert views.st_auxiliary_label[0].tolist() == rows(6, 6, 6, 6)
    assert views.st.label_st[0].tolist() == rows(3, 9, 3, 9)


def test_released_htcm_follows_the_weak_mixed_views_prediction() -> None:
    # The stub is sure of class 7 everywhere: the whole strong class-mixed view is pasted, source pixels too.
    views, seen = views_of(*RELEASED)
    assert seen == [STRONG, WEAK, STRONG]
    assert views.hts.label_hts[0].tolist() == rows(7, 7, 7, 7)
    assert views.hts.label_confident[0].tolist() == rows(7, 9, 7, 9)
    assert views.st.label_st[0].tolist() == rows(3, 9, 3, 9)


def test_released_htcm_pastes_nothing_where_the_mixed_view_is_unsure() -> None:
    views, seen = views_of(*RELEASED, stub=Stub(p=0.9))
    assert seen[2] == rows(20, 20, 20, 20)
    assert views.hts.label_hts[0].tolist() == rows(8, 9, 8, 9)
    assert views.hts.label_confident[0].tolist() == rows(255, 9, 255, 9)


def test_the_edge_variant_keeps_the_pasted_classes_on_x_hts_and_has_bands() -> None:
    views, seen = views_of("gta2cs-edge")
    assert seen == [STRONG, WEAK, rows(40, 10, 20, 10)]
    assert views.hts.label_hts[0].tolist() == rows(3, 9, 8, 9)
    # Around columns 1 and 3 of the paste; around columns 0 and 1 of M_ht, off the paste.
    assert views.st.band_st is not None
    assert views.hts.band_hts is not None
    assert views.st.band_st[0].int().tolist() == rows(0, 1, 1, 1)
    assert views.hts.band_hts[0].int().tolist() == rows(0, 0, 1, 0)


def test_the_released_edge_variant_follows_a_pass_of_its_own_over_the_target_crop() -> None:
    # The stub is sure of main 7 and auxiliary 6, and so is what it says of the un-mixed crop.
    edge = ("gta2cs-edge+released", "mix.off_by_one=false")
    views, seen = views_of(*edge, stub=Stub(main=7, auxiliary=6))
    assert seen == [STRONG, WEAK, rows(30, 30, 30, 30), STRONG]
    assert views.hts.label_hts[0].tolist() == rows(7, 9, 7, 9)
    assert views.hts.label_confident[0].tolist() == rows(7, 9, 7, 9)
    assert views.hts_auxiliary_label[0].tolist() == rows(6, 9, 6, 9)
    assert views.st_auxiliary_label[0].tolist() == rows(6, 6, 6, 6)
    assert views.st.label_st[0].tolist() == rows(3, 9, 3, 9)
    views, seen = views_of(*edge, stub=Stub(main=7, auxiliary=6, p=0.9))
    assert seen[3] == rows(20, 10, 20, 10)
    assert views.hts_auxiliary_label[0].tolist() == views.hts.label_hts[0].tolist() == rows(8, 9, 8, 9)


def test_without_cmix_only_the_htcm_view_of_the_target_is_made() -> None:
    views, seen = views_of("gta2cs", "mix.enabled=false", "contrast.pixel=false", "contrast.prototype=false")
    assert seen == [HTS]
    assert views.hts.label_hts[0].tolist() == rows(3, 3, 8, 9)
    assert not views.st.pasted.any()


def test_without_htcm_no_htcm_view_is_made() -> None:
    _, seen = views_of("gta2cs", "htcm.enabled=false")
    assert seen == [STRONG, WEAK]


def test_without_contrast_nothing_needs_the_weak_view() -> None:
    _, seen = views_of("gta2cs", "contrast.pixel=false", "contrast.prototype=false")
    assert seen == [STRONG, HTS]


def test_released_htcm_needs_the_weak_view_even_without_contrast() -> None:
    off = ("contrast.pixel=false", "contrast.prototype=false", 'auxiliary.labels="pasted"')
    _, seen = views_of(*RELEASED, *off)
    assert seen == [STRONG, WEAK, STRONG]


def test_own_auxiliary_labels_need_the_weak_view_even_without_contrast() -> None:
    off = ("contrast.pixel=false", "contrast.prototype=false", 'auxiliary.labels="prediction"')
    _, seen = views_of("gta2cs", *off)
    assert seen == [STRONG, WEAK, HTS]
    _, seen = views_of("gta2cs", *off, "model.auxiliary=false")
    assert seen == [STRONG, HTS]


def test_contrast_on_hts_adds_the_htcm_view_of_weak_crops_and_drops_the_weak_mixed_one() -> None:
    views, seen = views_of("gta2cs", 'contrast.on="hts"')
    assert seen == [STRONG, HTS, rows(30, 30, 10, 10)]
    assert set(views.outputs) == {"strong", "hts", "hts weak"}


def test_both_views_of_a_released_x_hts_show_the_same_places() -> None:
    # Where the strong view shows pasted source pixels, the weak view must show them too.
    _, seen = views_of(*RELEASED, 'contrast.on="hts"')
    assert seen == [STRONG, WEAK, STRONG, WEAK]


def test_tau_is_the_threshold_and_must_be_exceeded() -> None:
    for confidence, pasted in ((0.75, False), (0.751, True)):
        pseudo = PSEUDO._replace(confidence=torch.full((1, SIZE, SIZE), confidence))
        stub: Any = Stub()
        mixed_views(stub, SOURCE, TARGET, pseudo, load_recipe("gta2cs", ["method.tau=0.75"]), AS_IT_IS, DRAWS)
        assert drawn(stub.seen[2]) == (rows(40, 40, 40, 40) if pasted else rows(20, 20, 20, 20))


def test_class_choice_follows_the_recipe() -> None:
    # Released: class 9 is drawn, and the entry before it, class 8, is pasted.
    _, seen = views_of("gta2cs", "mix.off_by_one=true")
    assert seen[1] == rows(10, 30, 10, 30)
    _, seen = views_of("gta2cs", "mix.fraction=1.0")
    assert seen[1] == rows(10, 10, 10, 10)
    _, seen = views_of("gta2cs", "mix.fraction=1.0", "mix.min_class=9")
    assert seen[1] == WEAK


def test_crop_labels_have_the_main_heads_confidence_and_both_heads_average() -> None:
    main = torch.tensor([[0.6, 0.4]]).log().view(1, 2, 1, 1)
    auxiliary = torch.tensor([[0.1, 0.9]]).log().view(1, 2, 1, 1)
    labels = label_crops(Outputs(main, auxiliary), (1, 1), None, None)
    assert labels.label.item() == 0
    assert labels.confidence.item() == pytest.approx(0.6)
    assert labels.two_head.item() == 1


def test_crop_labels_without_an_auxiliary_head_are_the_main_heads() -> None:
    labels = label_crops(Outputs(torch.tensor([0.0, 1.0]).view(1, 2, 1, 1), None), (1, 1), None, None)
    assert labels.two_head.item() == labels.label.item() == 1


def test_crop_labels_are_read_where_the_boxes_lie() -> None:
    # The view is 5 pixels wide, class 1's logit is the pixel's number and class 0's is 1.5.
    logits = torch.tensor([[1.5, 1.5], [0.0, 4.0]]).view(1, 2, 1, 2)
    labels = label_crops(Outputs(logits, None), (1, 2), (1, 5), torch.tensor([[0.0, 1.0, 1.0, 2.0]]))
    assert labels.label.tolist() == [[[0, 1]]]
    assert labels.confidence.flatten().tolist() == pytest.approx([1 / (1 + math.exp(-0.5))] * 2)


def test_crop_labels_carry_no_gradient() -> None:
    logits = torch.zeros(1, 2, 1, 1, requires_grad=True)
    assert not label_crops(Outputs(logits, logits), (1, 1), None, None).confidence.requires_grad


def test_confident_pseudo_labels_alone_are_learnt_outside_the_paste() -> None:
    views, _ = views_of("gta2cs", 'mix.pseudo_labels="confident"')
    assert views.st.label_st.tolist() == [rows(3, 9, IGNORE_INDEX, 9)]
    assert views.st_auxiliary_label.tolist() == [rows(5, 9, IGNORE_INDEX, 9)]
    everywhere, _ = views_of("gta2cs")
    assert everywhere.st.label_st.tolist() == [rows(3, 9, 3, 9)]
    for unmoved in ("label_confident", "weak", "strong"):
        assert torch.equal(getattr(views.st, unmoved), getattr(everywhere.st, unmoved))
    assert torch.equal(views.hts.label_hts, everywhere.hts.label_hts)


def test_the_label_under_a_soft_paste_is_learnt_where_it_is_sure() -> None:
    views, _ = views_of("gta2cs+dsp-soft", 'mix.pseudo_labels="confident"')
    assert views.under is not None
    assert views.under.label.tolist() == [rows(3, 3, IGNORE_INDEX, IGNORE_INDEX)]
    assert views.under.two_head.tolist() == [rows(5, 5, IGNORE_INDEX, IGNORE_INDEX)]
    assert views.pseudo.label.tolist() == [rows(3, 3, 3, 3)]


def test_the_views_own_prediction_is_learnt_where_the_teacher_is_sure() -> None:
    views, _ = views_of("gta2cs", 'auxiliary.labels="prediction"', 'mix.pseudo_labels="confident"', stub=Stub(7, 8))
    assert views.st_auxiliary_label.tolist() == [rows(8, 8, IGNORE_INDEX, 8)]


def test_the_surest_pseudo_labels_of_each_class_alone_are_learnt() -> None:
    balanced = ('mix.pseudo_labels="confident"', 'method.confident="class-balanced"')
    views, _ = views_of("gta2cs", *balanced, "method.portion=0.25")
    kept = views.st.label_st != IGNORE_INDEX
    # Class 3 is surest in columns 0 and 1, alike in each row, and column 1 is pasted as column 3 is.
    assert kept[0].tolist() == [[True, True, False, True]] * SIZE
    whole, _ = views_of("gta2cs", *balanced, "method.portion=1")
    everywhere, _ = views_of("gta2cs")
    assert torch.equal(whole.st.label_st, everywhere.st.label_st)
    assert torch.equal(whole.st_auxiliary_label, everywhere.st_auxiliary_label)


def test_htcm_and_prototypes_take_the_surest_of_each_class_where_nothing_is_above_tau() -> None:
    unsure = PSEUDO._replace(confidence=torch.tensor([rows(0.3, 0.2, 0.1, 0.1)]))
    above, seen = views_of("gta2cs", pseudo=unsure)
    assert seen[2] == rows(20, 20, 20, 20)
    assert above.st.label_confident[0].tolist() == rows(255, 9, 255, 9)
    balanced, seen = views_of("gta2cs", 'method.confident="class-balanced"', "method.portion=0.25", pseudo=unsure)
    assert seen[2] == rows(40, 20, 20, 20)
    assert balanced.hts.label_hts[0].tolist() == rows(3, 9, 8, 9)
    assert balanced.st.label_confident[0].tolist() == rows(3, 9, 255, 9)
    assert torch.equal(balanced.st.label_st, above.st.label_st)
    assert balanced.pseudo is unsure


@pytest.mark.parametrize("recipe", ["gta2cs-released", "gta2cs-edge"])
def test_the_surest_of_a_prediction_of_its_own_are_pasted(recipe: str) -> None:
    settings = ("mix.off_by_one=false", "mix.min_class=0")
    own = () if recipe == "gta2cs-released" else ('edge.confidence="crop"',)
    unsure = [0.6, 0.5, 0.4, 0.3]
    above, _ = views_of(recipe, *settings, *own, stub=Stub(p=unsure))
    assert not (above.hts.label_hts == 7).any()
    by_class = (*settings, *own, 'method.confident="class-balanced"')
    for portion, expected in ((0.25, [True, False, False, False]), (0.75, [True, False, True, False])):
        balanced, _ = views_of(recipe, *by_class, f"method.portion={portion}", "method.tau=0", stub=Stub(p=unsure))
        # Columns 1 and 3 show what class-mix pasted, where the released recipe pastes its own prediction too.
        pasted = [False, recipe == "gta2cs-released" and portion > 0.5, False, False]
        found = (balanced.hts.label_hts == 7)[0].tolist()
        assert found == [[a or b for a, b in zip(expected, pasted, strict=True)]] * SIZE


def test_the_released_recipe_learns_where_the_teacher_is_confident_and_not_its_own_prediction() -> None:
    unsure = PSEUDO._replace(confidence=torch.tensor([rows(0.3, 0.2, 0.1, 0.1)]))
    by_class = ('mix.pseudo_labels="confident"', 'method.confident="class-balanced"', "method.portion=0.25")
    views, _ = views_of(*RELEASED, *by_class, "mix.min_class=0", stub=Stub(p=[0.3, 0.4, 0.5, 0.6]), pseudo=unsure)
    assert views.st.label_st[0].tolist() == rows(3, 9, IGNORE_INDEX, 9)


def test_the_label_under_a_soft_paste_is_learnt_where_it_is_among_the_surest() -> None:
    unsure = PSEUDO._replace(confidence=torch.tensor([rows(0.3, 0.2, 0.1, 0.1)]))
    by_class = ('mix.pseudo_labels="confident"', 'method.confident="class-balanced"', "method.portion=0.5")
    views, _ = views_of("gta2cs+dsp-soft", *by_class, pseudo=unsure)
    assert views.under is not None
    assert views.under.label[0].tolist() == rows(3, 3, IGNORE_INDEX, IGNORE_INDEX)


@pytest.mark.parametrize("portion", [0.01, 0.3, 0.5, 1.0])
def test_the_surest_are_those_that_a_loop_over_classes_finds(portion: float) -> None:
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 5, (2, 7, 9), dtype=torch.uint8, generator=generator).clamp(max=3)
    label[1] = 3
    label[0, 0, 0] = 18
    pseudo = PseudoLabels(label, torch.rand(label.shape, generator=generator), label)
    expected = torch.zeros_like(label, dtype=torch.bool)
    for one in label.unique():
        confidence = pseudo.confidence[label == one].sort(descending=True).values
        expected |= (label == one) & (pseudo.confidence >= confidence[math.ceil(portion * len(confidence)) - 1])
    balanced = pseudo.class_balanced(portion)
    assert torch.equal(balanced.above(0), expected)
    assert torch.equal(balanced.above(0.99), expected)
    assert balanced.confidence.dtype == pseudo.confidence.dtype
    assert torch.equal(pseudo.only(expected).label, torch.where(expected, label, IGNORE_INDEX))
