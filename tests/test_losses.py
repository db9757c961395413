"""The loss terms of equation 12: each by hand or by its printed formula, and their weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fastuda.method.contrast import pixel_loss, prototype_loss
from fastuda.method.losses import mixed_losses, weighted_sum
from fastuda.method.pseudo_labels import PseudoLabels
from fastuda.method.segmentation import segmentation_loss
from fastuda.method.views import MixedViews
from fastuda.model.segmenter import Outputs
from fastuda.recipe.file import load_recipe
from fastuda_kernels.masked_mix import MixedCrops

NUM_IMAGES, NUM_CLASSES = 3, 4
"""No two alike, nor as many as there are views in a contrast or heads: a mean over the wrong one shows."""


def sure_of(*probability: float) -> Tensor:
    """Outputs [1, C, 1, 1] of one position with these class probabilities."""
    return torch.tensor(probability).log().view(1, -1, 1, 1)


def labels_of(*rows: list[int]) -> Tensor:
    return torch.tensor([rows], dtype=torch.uint8)


def random_logits(seed: int) -> Tensor:
    return torch.randn(NUM_IMAGES, NUM_CLASSES, 2, 2, generator=torch.Generator().manual_seed(seed))


def random_labels(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, NUM_CLASSES, (NUM_IMAGES, 4, 4), dtype=torch.uint8, generator=generator)


def mixed_views(*, edge: bool = False) -> MixedViews:
    """Views whose every field differs from every other, so that a mix-up of two shows."""
    bands = torch.rand(2, NUM_IMAGES, 4, 4, generator=torch.Generator().manual_seed(9)) < 0.5
    images = torch.zeros(NUM_IMAGES, 3, 4, 4)

    def crops(seed: int) -> MixedCrops:
        st, hts, confident, auxiliary = (random_labels(10 * seed + k) for k in range(4))
        return MixedCrops(
            *(images, images, images, st, hts, confident, auxiliary, torch.zeros(NUM_IMAGES, 4, 4, dtype=torch.bool)),
            band_st=bands[0] if edge else None,
            band_hts=bands[1] if edge else None,
        )

    names = ("weak", "strong", "hts", "hts weak", "ss")
    outputs = {name: Outputs(random_logits(2 * k), random_logits(2 * k + 1)) for k, name in enumerate(names)}
    pseudo = PseudoLabels(random_labels(97), torch.zeros(2, 4, 4), random_labels(96))
    return MixedViews(crops(1), crops(2), random_labels(99), random_labels(98), pseudo, None, None, outputs)


def assert_terms(losses: dict[str, Tensor], **expected: Tensor) -> None:
    assert list(losses) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)


def weights_of(recipe: str, *settings: str) -> dict[str, float]:
    """The weight of every term: the gradient of the sum."""
    names = ["source", "mix", "htcm", "pixel", "prototype", "edge_mix", "edge_htcm", "edge_htcm_auxiliary"]
    losses = {name: torch.tensor(1.0, requires_grad=True) for name in names}
    total = weighted_sum(losses, load_recipe(recipe, settings))
    total.backward()
    weights = {name: loss.grad.item() for name, loss in losses.items() if loss.grad is not None}
    assert total.item() == pytest.approx(sum(weights.values()))
    return weights


def test_weights_of_gta5_are_the_papers() -> None:
    weights = weights_of("gta2cs")
    paper = {"source": 1, "mix": 0.1, "htcm": 0.1, "pixel": 0.01, "prototype": 0.01}
    assert {name: weights[name] for name in paper} == pytest.approx(paper)


def test_weights_of_synthia_are_the_papers() -> None:
    weights = weights_of("syn2cs")
    paper = {"source": 1, "mix": 0.1, "htcm": 0.1, "pixel": 0.008, "prototype": 0.008}
    assert {name: weights[name] for name in paper} == pytest.approx(paper)


def test_weights_of_the_edge_variant() -> None:
    weights = weights_of("gta2cs-edge")
    row_25 = {"edge_mix": 0.1, "edge_htcm": 0.01, "edge_htcm_auxiliary": 0.001}
    assert {name: weights[name] for name in row_25} == pytest.approx(row_25)


def test_every_weight_is_a_field_of_the_recipe() -> None:
    weights = weights_of(
        "gta2cs",
        *("method.mixed_weight=0.5", "method.contrast_weight=0.25", "edge.paste_weight=0.125"),
        *("edge.htcm_weight=0.5", "edge.htcm_auxiliary_weight=0.25"),
    )
    of_equation_12 = {"source": 1, "mix": 0.5, "htcm": 0.5, "pixel": 0.25, "prototype": 0.25}
    assert weights == of_equation_12 | {"edge_mix": 0.0625, "edge_htcm": 0.25, "edge_htcm_auxiliary": 0.125}


def test_the_sum_is_over_the_terms_present() -> None:
    losses = {"source": torch.tensor(2.0), "htcm": torch.tensor(3.0)}
    assert weighted_sum(losses, load_recipe("gta2cs")).item() == pytest.approx(2.3)


def test_segmentation_loss_adds_the_weighted_auxiliary_head_by_hand() -> None:
    logits = Outputs(sure_of(0.5, 0.25, 0.25), sure_of(0.1, 0.1, 0.8))
    loss = segmentation_loss(logits, labels_of([0, 0]), 0.1)
    assert loss.item() == pytest.approx(math.log(2) + 0.1 * math.log(10))


def test_the_auxiliary_head_may_learn_labels_of_its_own() -> None:
    logits = Outputs(sure_of(0.5, 0.25, 0.25), sure_of(0.1, 0.1, 0.8))
    loss = segmentation_loss(logits, labels_of([0, 0]), 0.1, auxiliary_labels=labels_of([2, 2]))
    assert loss.item() == pytest.approx(math.log(2) + 0.1 * math.log(1 / 0.8))


def test_a_mask_counts_for_both_heads() -> None:
    logits = Outputs(sure_of(0.5, 0.25, 0.25), sure_of(0.1, 0.2, 0.7))
    mask = torch.tensor([[[True, False]]])
    loss = segmentation_loss(logits, labels_of([0, 1]), 0.1, mask=mask)
    assert loss.item() == pytest.approx(math.log(2) + 0.1 * math.log(10))


def test_without_an_auxiliary_head_or_weight_the_main_head_is_all() -> None:
    main = sure_of(0.5, 0.25, 0.25)
    assert segmentation_loss(Outputs(main, None), labels_of([0]), 0.1).item() == pytest.approx(math.log(2))
    assert segmentation_loss(Outputs(main, main), labels_of([0]), 0.0).item() == pytest.approx(math.log(2))


def test_pixel_loss_pairs_equal_positions_of_two_views_by_hand() -> None:
    # Two positions, sure of class 0 and of class 1, in both views: one match and two misses an anchor.
    logits = torch.tensor([[[[60.0, -60.0]], [[-60.0, 60.0]]]])
    expected = math.log(1 + 2 * math.exp(-20))
    assert pixel_loss(logits, logits, 20.0).item() == pytest.approx(expected, abs=1e-6)
    # The second view has them swapped: the positive is a miss, one of two negatives a match.
    assert pixel_loss(logits, logits.flip(-1), 20.0).item() == pytest.approx(20 + math.log(1 + 2 * math.exp(-20)))


def test_prototype_loss_contrasts_the_classes_present_by_hand() -> None:
    # Classes 0 and 1 have a position each and sure prototypes in both views; class 2 is absent.
    logits = torch.full((1, 3, 1, 2), -60.0)
    logits[0, 0, 0, 0] = logits[0, 1, 0, 1] = 60.0
    settings = load_recipe("gta2cs").contrast
    loss = prototype_loss(logits, logits, labels_of([0, 1]), settings)
    assert loss.item() == pytest.approx(math.log(1 + 2 * math.exp(-7)), abs=1e-6)


def test_prototype_loss_averages_logits_before_the_softmax() -> None:
    # Outputs (3, 0) and (-1, 0) of class 0 average to (1, 0); class 1 has (0, 1). σ = softmax(1, 0).
    logits = torch.tensor([[[[3.0, -1.0, 0.0]], [[0.0, 0.0, 1.0]]]])
    own = 1 / (1 + math.exp(-1))
    match, miss = own**2 + (1 - own) ** 2, 2 * own * (1 - own)
    expected = math.log(1 + 2 * math.exp(7 * (miss - match)))
    loss = prototype_loss(logits, logits, labels_of([0, 0, 1]), load_recipe("gta2cs").contrast)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_prototype_samples_first_is_the_first_image_over_the_size_of_the_batch() -> None:
    first, second, labels = random_logits(0), random_logits(1), random_labels(0)
    every, alone = load_recipe("gta2cs").contrast, load_recipe("gta2cs-released").contrast
    each = [slice(k, k + 1) for k in range(NUM_IMAGES)]
    of_each = torch.stack([prototype_loss(first[one], second[one], labels[one], every) for one in each])
    torch.testing.assert_close(prototype_loss(first, second, labels, alone), of_each[0] / NUM_IMAGES)
    torch.testing.assert_close(prototype_loss(first, second, labels, every), of_each.mean())
    assert len(of_each.unique()) == NUM_IMAGES


def test_every_term_takes_its_own_view_and_labels() -> None:
    views, recipe = mixed_views(), load_recipe("gta2cs")
    weak, strong, hts = views.outputs["weak"].logits, views.outputs["strong"], views.outputs["hts"].logits
    assert_terms(
        mixed_losses(views, recipe),
        mix=segmentation_loss(strong, views.st.label_st, 0.1, auxiliary_labels=views.st_auxiliary_label),
        htcm=segmentation_loss(Outputs(hts, None), views.hts.label_hts, 0.1),
        pixel=pixel_loss(weak, strong.logits, 20.0),
        prototype=prototype_loss(weak, strong.logits, views.hts.label_confident, recipe.contrast),
    )


def test_the_edge_variant_adds_its_bands_and_the_auxiliary_head_on_x_hts() -> None:
    views, recipe = mixed_views(edge=True), load_recipe("gta2cs-edge")
    losses = mixed_losses(views, recipe)
    assert set(losses) - set(mixed_losses(mixed_views(), load_recipe("gta2cs"))) == {
        "edge_mix",
        "edge_htcm",
        "edge_htcm_auxiliary",
    }
    on_mix = segmentation_loss(
        *(views.outputs["strong"], views.st.label_st, 0.1),
        auxiliary_labels=views.st_auxiliary_label,
        mask=views.st.band_st,
    )
    main, auxiliary = views.outputs["hts"].main_head(), views.outputs["hts"].auxiliary_head()
    torch.testing.assert_close(losses["edge_mix"], on_mix)
    band = segmentation_loss(main, views.hts.label_hts, 0.1, mask=views.hts.band_hts)
    torch.testing.assert_close(losses["edge_htcm"], band)
    own = segmentation_loss(auxiliary, views.hts_auxiliary_label, 0.1)
    torch.testing.assert_close(losses["edge_htcm_auxiliary"], own)


def test_the_released_edge_variant_counts_the_first_image_around_m_ht_and_all_around_the_paste() -> None:
    views, whole = mixed_views(edge=True), mixed_losses(mixed_views(edge=True), load_recipe("gta2cs-edge"))
    assert views.outputs["hts"].auxiliary is not None
    assert views.hts.band_hts is not None
    losses = mixed_losses(views, load_recipe("gta2cs-edge+released"))
    main, auxiliary = views.outputs["hts"].logits[:1], views.outputs["hts"].auxiliary[:1]
    band = segmentation_loss(Outputs(main, None), views.hts.label_hts[:1], 0.1, mask=views.hts.band_hts[:1])
    torch.testing.assert_close(losses["edge_htcm"], band)
    own = segmentation_loss(Outputs(auxiliary, None), views.hts_auxiliary_label[:1], 0.1)
    torch.testing.assert_close(losses["edge_htcm_auxiliary"], own)
    torch.testing.assert_close(losses["edge_mix"], whole["edge_mix"])


@pytest.mark.parametrize("which", range(NUM_IMAGES))
def test_released_bands_enter_the_loss_for_all_images_or_for_none(which: int) -> None:
    views = mixed_views(edge=True)
    assert views.st.band_st is not None
    assert views.hts.band_hts is not None
    views.st.band_st[which] = views.hts.band_hts[(which + 1) % NUM_IMAGES] = False
    terms = ("edge_mix", "edge_htcm")
    ours = mixed_losses(views, load_recipe("gta2cs-edge+released"))
    assert [float(ours[term]) for term in terms] == [0, 0]
    ours = mixed_losses(views, load_recipe("gta2cs-edge"))
    assert all(float(ours[term]) > 0 for term in terms)


def test_htcm_samples_first_is_the_first_image_alone() -> None:
    views = mixed_views()
    each = zip(views.outputs["hts"].logits.split(1), views.hts.label_hts.split(1), strict=True)
    of_each = torch.stack([segmentation_loss(Outputs(main, None), labels, 0.1) for main, labels in each])
    torch.testing.assert_close(mixed_losses(views, load_recipe("gta2cs-released"))["htcm"], of_each[0])
    torch.testing.assert_close(mixed_losses(views, load_recipe("gta2cs"))["htcm"], of_each.mean())
    assert len(of_each.unique()) == NUM_IMAGES


def test_contrast_on_hts_compares_the_two_htcm_views_under_the_htcm_label() -> None:
    views, recipe = mixed_views(), load_recipe("gta2cs", ['contrast.on="hts"'])
    losses = mixed_losses(views, recipe)
    first, second = views.outputs["hts weak"].logits, views.outputs["hts"].logits
    torch.testing.assert_close(losses["pixel"], pixel_loss(first, second, 20.0))
    expected = prototype_loss(first, second, views.hts.label_hts, recipe.contrast)
    torch.testing.assert_close(losses["prototype"], expected)


@pytest.mark.parametrize("term", ["pixel", "prototype"])
def test_a_contrast_that_is_off_has_no_term(term: str) -> None:
    losses = mixed_losses(mixed_views(), load_recipe("gta2cs", [f"contrast.{term}=false"]))
    assert {"pixel", "prototype"} - set(losses) == {term}


def test_the_contrast_has_a_gradient_through_both_views() -> None:
    first, second = random_logits(0).requires_grad_(), random_logits(1).requires_grad_()
    for loss in (
        pixel_loss(first, second, 20.0),
        prototype_loss(first, second, random_labels(0), load_recipe("gta2cs").contrast),
    ):
        gradients = torch.autograd.grad(loss, (first, second))
        assert all(gradient.abs().max() > 0 for gradient in gradients)
