"""Masked image consistency: what is blanked, and the loss by its formula in fp64."""

from __future__ import annotations

import pytest
import torch
from formulas import dense_cross_entropy
from steps import AS_IT_IS, SMALL, batches, begin
from torch import Tensor

from fastuda.method.draws import Draws
from fastuda.method.pseudo_labels import PseudoLabels, label_target
from fastuda.method.step import adaptation_step
from fastuda.method.terms.masked import Masked
from fastuda.method.views import MixedViews
from fastuda.model.segmenter import Outputs
from fastuda.recipe.file import load_recipe
from fastuda_kernels.masked_mix import MixedCrops, normalise

B, C, H, W = 2, 5, 6, 8


def masked_image(term: Masked, iteration: int = 0) -> tuple[Tensor, Tensor]:
    """The image that the term makes of the target's strong crops, and those crops, normalised."""
    recipe = load_recipe("gta2cs", SMALL)
    source, target = batches(recipe)
    pseudo = label_target(begin(recipe).student, target, AS_IT_IS)
    made = term.images(source, target, pseudo, AS_IT_IS, Draws(0, torch.tensor(iteration)))["masked"]
    return made, normalise(target.strong, AS_IT_IS.normalisation)


def test_whole_blocks_are_blanked_and_nothing_else_is_touched() -> None:
    made, strong = masked_image(Masked(ratio=0.5, block=5))  # 16 pixels: three blocks, and one cut to a pixel
    blanked = made == 0
    assert torch.equal(torch.where(blanked, strong, made), strong)
    for image, truth in zip(blanked, strong, strict=True):
        for top in range(0, 16, 5):
            for left in range(0, 16, 5):
                block = (slice(None), slice(top, top + 5), slice(left, left + 5))
                assert image[block].all() or torch.equal(image[block], truth[block] == 0)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.7, 1.0])
def test_the_ratio_is_the_share_of_blocks(ratio: float) -> None:
    term, shares = Masked(ratio=ratio, block=1), []
    for iteration in range(4):
        made, strong = masked_image(term, iteration)
        shares.append(((made == 0) & (strong != 0)).any(1).float().mean().item())
    share, spread = sum(shares) / 4, (ratio * (1 - ratio) / (4 * 3 * 16 * 16)) ** 0.5
    assert share == pytest.approx(ratio, abs=5 * spread + 1e-9)


def views(weight: Tensor | None) -> MixedViews:
    generator = torch.Generator().manual_seed(5)
    labels = torch.randint(0, C, (B, H, W), dtype=torch.uint8, generator=generator)
    labels[0, 0] = 255
    confidence = torch.rand(B, H, W, generator=generator)
    crops = MixedCrops(*(torch.zeros(B, 3, H, W),) * 3, *(labels,) * 4, confidence < 0, None, None)
    logits = torch.randn(B, C, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    outputs = {"masked": Outputs(logits, logits.detach() * 2)}
    return MixedViews(
        crops, crops, labels, labels, PseudoLabels(labels, confidence, labels), None, None, outputs, weight
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_cross_entropy_under_the_teachers_labels(weighted: bool) -> None:
    weight = torch.rand(B, H, W, generator=torch.Generator().manual_seed(8), dtype=torch.float64) if weighted else None
    own, recipe = views(weight), load_recipe("gta2cs", ["method.tau=0.4"])
    loss, logits = Masked().value(own, recipe), own.outputs["masked"].logits
    counts = (own.pseudo.confidence > 0.4).double() if weight is None else weight
    expected = dense_cross_entropy(logits, own.pseudo.label, own.pseudo.label != 255, counts, True)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    (found,), (wanted,) = torch.autograd.grad(loss, logits), torch.autograd.grad(expected, logits)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


def test_it_enters_the_step_with_its_weight_and_moves_no_other_term() -> None:
    def losses(*settings: str) -> dict[str, float]:
        recipe = load_recipe("gta2cs", [*SMALL, "method.tau=0.0", *settings])
        found = adaptation_step(begin(recipe), *batches(recipe), recipe, AS_IT_IS)
        return {name: float(loss) for name, loss in found.items()}

    plain, more = losses(), losses("terms.masked.weight=0.5", "terms.masked.block=4")
    assert {name: more[name] for name in plain if name != "total"} == {
        name: plain[name] for name in plain if name != "total"
    }
    assert more["total"] == pytest.approx(plain["total"] + 0.5 * more["masked"], rel=1e-5)
