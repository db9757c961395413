"""What pseudo-labels count: shares by hand, margins by a drawing, the losses by their formula in fp64."""

from __future__ import annotations

import pytest
import torch
from formulas import dense_cross_entropy
from steps import AS_IT_IS, SMALL, batches, begin
from torch import Tensor

from fastuda.data.loading.batch import DomainBatch
from fastuda.errors import UsageError
from fastuda.method.pseudo_labels import PseudoLabels
from fastuda.method.quality import pseudo_weight
from fastuda.method.step import adaptation_step
from fastuda.method.terms.mix import Mix
from fastuda.method.views import MixedViews
from fastuda.model.segmenter import Outputs
from fastuda.recipe import Recipe
from fastuda.recipe.file import load_recipe
from fastuda_kernels.masked_mix import MixedCrops

B, C, H, W = 2, 5, 6, 8
VIEW = (40, 20)
"""Width and height."""


def recipe_with(*settings: str) -> Recipe:
    sizes = [f"views.target_size={list(VIEW)}", "views.crop_size=[32, 32]"]
    return load_recipe("gta2cs", [*SMALL, *sizes, "quality.enabled=true", *settings])


def target(boxes: list[list[float]], size: tuple[int, int] = (H, W)) -> DomainBatch:
    image = torch.zeros(len(boxes), *size, 3, dtype=torch.uint8)
    return DomainBatch(None, None, image, image, None, torch.tensor(boxes), torch.zeros(len(boxes), C), [])


def pseudo_of(confidence: Tensor) -> PseudoLabels:
    label = torch.randint(0, C, confidence.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    return PseudoLabels(label, confidence, label.roll(1, 0))


CONFIDENCE = torch.rand(B, H, W, generator=torch.Generator().manual_seed(1))
WHOLE = [[0.0, 0.0, float(VIEW[1]), float(VIEW[0])]] * B


def test_off_there_is_no_weight() -> None:
    recipe = load_recipe("gta2cs")
    assert pseudo_weight(pseudo_of(CONFIDENCE), target(WHOLE), recipe) is None


def test_the_weight_is_the_share_that_is_sure_of_the_image_or_of_the_batch() -> None:
    sure = [[float(value) >= 0.6 for value in image.flatten()] for image in CONFIDENCE]
    shares = [sum(image) / len(image) for image in sure]
    by_image = pseudo_weight(pseudo_of(CONFIDENCE), target(WHOLE), recipe_with("quality.tau=0.6", "quality.per=image"))
    by_batch = pseudo_weight(pseudo_of(CONFIDENCE), target(WHOLE), recipe_with("quality.tau=0.6"))
    assert by_image is not None
    assert by_batch is not None
    assert by_image.shape == by_batch.shape == (B, H, W)
    for image, share in zip(by_image, shares, strict=True):
        assert image.flatten().tolist() == pytest.approx([share] * (H * W))
    assert by_batch.flatten().tolist() == pytest.approx([sum(shares) / B] * (B * H * W))
    assert shares[0] != shares[1]


def test_a_confidence_of_exactly_the_threshold_is_sure() -> None:
    confidence = torch.full((1, H, W), 0.5)
    weight = pseudo_weight(pseudo_of(confidence), target(WHOLE[:1]), recipe_with("quality.tau=0.5"))
    assert weight is not None
    assert (weight == 1).all()


def test_margins_are_the_views_wherever_the_crop_lies() -> None:
    boxes = [[0.0, 0.0, 20.0, 40.0], [5.0, 10.0, 10.0, 16.0], [14.0, 24.0, 6.0, 16.0]]
    size = (10, 20)
    margins = ("quality.top=3", "quality.bottom=5", "quality.sides=4", "quality.tau=0.0")
    weight = pseudo_weight(pseudo_of(torch.ones(3, *size)), target(boxes, size), recipe_with(*margins))
    assert weight is not None
    for image, (top, left, height, width) in zip(weight, boxes, strict=True):
        for row in range(size[0]):
            for column in range(size[1]):
                y, x = top + (row + 0.5) * height / size[0], left + (column + 0.5) * width / size[1]
                assert float(image[row, column]) == float(3 <= y < 15 and 4 <= x < 36)
    assert 0 < float(weight[0].mean()) < 1
    assert float(weight[1].mean()) == 1


def views(weight: Tensor | None, *, soft: bool = False) -> MixedViews:
    generator = torch.Generator().manual_seed(5)

    def labels() -> Tensor:
        return torch.randint(0, C, (B, H, W), dtype=torch.uint8, generator=generator)

    pasted = torch.rand(B, H, W, generator=generator) < 0.4
    crops = MixedCrops(*(torch.zeros(B, 3, H, W),) * 3, *(labels() for _ in range(4)), pasted, None, None)
    logits = torch.randn(B, C, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    auxiliary = torch.randn(B, C, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    under = PseudoLabels(labels(), torch.ones(B, H, W), labels()) if soft else None
    pseudo = PseudoLabels(labels(), torch.ones(B, H, W), labels())
    outputs = {"strong": Outputs(logits, auxiliary)}
    return MixedViews(crops, crops, labels(), labels(), pseudo, under, None, outputs, weight)


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_l_st_weighs_the_targets_labels_and_not_the_sources(soft: bool) -> None:
    weight = torch.rand(B, H, W, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    recipe = load_recipe("gta2cs+dsp-soft" if soft else "gta2cs+cmix", ["auxiliary.weight=0.25"])
    own = views(weight, soft=soft)
    loss = Mix().value(own, recipe)
    counts = own.st.pasted.double() + (~own.st.pasted).double() * weight
    strong, everywhere = own.outputs["strong"], torch.ones(B, H, W, dtype=torch.bool)
    assert strong.auxiliary is not None

    def both(main: Tensor, second: Tensor, by: Tensor) -> Tensor:
        assert strong.auxiliary is not None
        head = dense_cross_entropy(strong.logits, main, everywhere, by, True)
        return head + 0.25 * dense_cross_entropy(strong.auxiliary, second, everywhere, by, True)

    expected = both(own.st.label_st, own.st_auxiliary_label, counts)
    if own.under is not None:
        share = recipe.source_mix.opacity
        expected = share * expected + (1 - share) * both(own.under.label, own.under.two_head, weight)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    leaves = (strong.logits, strong.auxiliary)
    for found, wanted in zip(torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    unweighted = Mix().value(own._replace(pseudo_weight=None), recipe)
    assert abs(unweighted.item() - loss.item()) > 1e-3


def test_the_step_weighs_with_what_the_teacher_says() -> None:
    def mix_of(*settings: str) -> float:
        recipe = load_recipe("gta2cs+cmix", [*SMALL, *settings])
        return float(adaptation_step(begin(recipe), *batches(recipe), recipe, AS_IT_IS)["mix"])

    sure_of_all = mix_of("quality.enabled=true", "quality.tau=0.0")
    assert sure_of_all == pytest.approx(mix_of(), rel=1e-6)
    sure_of_none = mix_of("quality.enabled=true", "quality.tau=0.9999")
    assert 0 < sure_of_none < sure_of_all
    cut = mix_of("quality.enabled=true", "quality.tau=0.0", "quality.top=8")
    assert sure_of_none < cut < sure_of_all


def test_what_it_would_weigh_in_vain_is_refused() -> None:
    with pytest.raises(UsageError, match=r"quality\.enabled weighs the labels of mix and of terms\.masked"):
        load_recipe("gta2cs+htcm", ["quality.enabled=true"])
    assert load_recipe("gta2cs+htcm", ["quality.enabled=true", "terms.masked.weight=1"]).quality.enabled
    for margins in ("quality.top=10", "quality.sides=20"):
        with pytest.raises(UsageError, match=r"quality: its margins leave nothing of views\.target_size = \[40, 20\]"):
            recipe_with(margins, "quality.bottom=10")


def test_variants_switch_it_off_unless_they_name_it() -> None:
    assert not load_recipe("gta2cs+cmix", layers=[((), ["quality.enabled=true"]), (["cmix"], ())]).quality.enabled
    named = load_recipe("gta2cs", ["quality.tau=0.9", 'parts=["mix", "quality"]'])
    assert (named.quality.enabled, named.quality.tau) == (True, 0.9)
