"""DSP's two pastes: which pixels and labels they make, how soft ones count, and what hard ones leave alone."""

from __future__ import annotations

import pytest
import torch
from steps import AS_IT_IS, batches, begin, tiny
from torch import Tensor

from fastuda.method.draws import Draws
from fastuda.method.losses import mixed_losses, weighted_sum
from fastuda.method.mixing import mix_crops, mixed_views
from fastuda.method.pseudo_labels import label_target
from fastuda.method.segmentation import segmentation_loss
from fastuda.method.source_mix import source_paste, with_long_tail
from fastuda.method.state import TrainingState
from fastuda.method.step import adaptation_step
from fastuda.method.views import MixedViews

HARD, SOFT = tiny("gta2cs+dsp-hard"), tiny("gta2cs+dsp-soft")


def draws_of(state: TrainingState) -> Draws:
    return Draws(0, state.iteration)


def views_of(name: str, *settings: str) -> MixedViews:
    recipe = tiny(name, *settings)
    state, (source, target) = begin(recipe), batches(recipe)
    pseudo = label_target(state.student, target, AS_IT_IS)
    return mixed_views(state.student, source, target, pseudo, recipe, AS_IT_IS, draws_of(state))


@pytest.mark.parametrize("opacity", [1.0, 0.9, 0.5])
def test_a_crops_pixels_go_onto_the_next_crop_pixel_by_pixel(opacity: float) -> None:
    recipe = tiny("gta2cs+dsp-soft", f"source_mix.opacity={opacity}")
    source, _ = batches(recipe)
    assert source.label is not None
    pasted = torch.rand(source.label.shape, generator=torch.Generator().manual_seed(3)) < 0.4
    found = source_paste(source, pasted, recipe, AS_IT_IS)
    for b, other in ((0, 1), (1, 2), (2, 0)):
        for y, x in ((0, 0), (3, 5), (15, 15), (7, 2), (8, 8), (2, 11)):
            over, under = source.strong[b, y, x].float(), source.strong[other, y, x].float()
            expected = opacity * over + (1 - opacity) * under if pasted[b, y, x] else under
            torch.testing.assert_close(found.image[b, :, y, x], expected)
            label = source.label[b if pasted[b, y, x] else other, y, x]
            assert found.label[b, y, x] == label
            assert found.under_label[b, y, x] == source.label[other, y, x]
    assert pasted.any()
    assert not pasted.all()


def test_three_crops_go_round_each_onto_the_one_after_it() -> None:
    source, _ = batches(SOFT)
    assert source.label is not None
    black, ground = torch.zeros(3, 16, 16, 3, dtype=torch.uint8), torch.zeros(3, 16, 16, dtype=torch.uint8)
    three = source._replace(strong=black, label=ground)
    assert three.label is not None
    for b in range(3):
        three.strong[b], three.label[b] = 10 * b, b
    everywhere = torch.ones(3, 16, 16, dtype=torch.bool)
    found = source_paste(three, everywhere, tiny("gta2cs+dsp-soft", "source_mix.opacity=0.5"), AS_IT_IS)
    assert found.image[:, 0, 0, 0].tolist() == [5, 15, 10]
    assert found.label[:, 0, 0].tolist() == [0, 1, 2]
    assert found.under_label[:, 0, 0].tolist() == [1, 2, 0]


def test_long_tail_classes_are_chosen_beside_those_that_mix_chooses() -> None:
    chosen = torch.zeros(2, 19, dtype=torch.bool)
    chosen[0, 3] = chosen[1, 12] = True
    found = with_long_tail(chosen, SOFT)
    assert [row.nonzero().flatten().tolist() for row in found] == [[3, 12, 15, 16, 17, 18], [12, 15, 16, 17, 18]]
    assert torch.equal(with_long_tail(chosen, tiny("gta2cs+cmix")), chosen)
    # The released choice has a column for every value of a label, ignored pixels' too.
    wide = torch.zeros(1, 256, dtype=torch.bool)
    wide[0, 255] = True
    assert with_long_tail(wide, SOFT)[0].nonzero().flatten().tolist() == [12, 15, 16, 17, 18, 255]


def test_both_pastes_are_of_the_same_classes() -> None:
    views = views_of("gta2cs+dsp-hard")
    source, _ = batches(HARD)
    assert views.ss is not None
    assert source.label is not None
    assert torch.equal(views.ss.label, torch.where(views.st.pasted, source.label, source.label.roll(-1, 0)))
    tail = torch.isin(source.label, torch.tensor([12, 15, 16, 17, 18], dtype=torch.uint8))
    assert views.st.pasted[tail].all()


def test_a_soft_paste_shows_the_target_through_in_both_views() -> None:
    state, (source, target) = begin(SOFT), batches(SOFT)
    pseudo = label_target(state.student, target, AS_IT_IS)
    hard = mix_crops(source, target, pseudo, HARD, AS_IT_IS, draws_of(state), "nowhere")
    state = begin(SOFT)
    soft = mixed_views(state.student, source, target, pseudo, SOFT, AS_IT_IS, draws_of(state))
    for name, under in (("weak", target.weak), ("strong", target.strong)):
        over = getattr(hard, name)
        expected = torch.where(
            hard.pasted[:, None], 0.9 * source.weak.permute(0, 3, 1, 2) + 0.1 * under.permute(0, 3, 1, 2), over
        )
        torch.testing.assert_close(getattr(soft.st, name), expected)
    assert soft.under is not None
    assert torch.equal(soft.under.label, pseudo.label)


def test_a_soft_paste_counts_for_both_labels_by_their_shares() -> None:
    views = views_of("gta2cs+dsp-soft")
    assert views.ss is not None
    assert views.under is not None

    def loss(logits: object, labels: Tensor, auxiliary: Tensor | None = None) -> Tensor:
        return segmentation_loss(logits, labels, 0.1, auxiliary_labels=auxiliary)  # type: ignore[arg-type]

    found = mixed_losses(views, SOFT)
    st, ss = views.outputs["strong"], views.outputs["ss"]
    over = loss(st, views.st.label_st, views.st_auxiliary_label)
    under = loss(st, views.under.label, views.under.two_head)
    torch.testing.assert_close(found["mix"], 0.9 * over + 0.1 * under)
    expected = 0.9 * loss(ss, views.ss.label) + 0.1 * loss(ss, views.ss.under_label)
    torch.testing.assert_close(found["source_mix"], expected)
    assert over.item() != pytest.approx(under.item())


def test_a_hard_paste_counts_for_the_pasted_label_alone() -> None:
    views = views_of("gta2cs+dsp-hard")
    assert views.under is None
    assert views.ss is not None
    found = mixed_losses(views, HARD)
    assert set(found) == {"mix", "source_mix"}
    torch.testing.assert_close(found["source_mix"], segmentation_loss(views.outputs["ss"], views.ss.label, 0.1))


def test_the_source_mix_weighs_as_much_as_the_source_or_as_asked() -> None:
    losses = {"source": torch.tensor(2.0), "source_mix": torch.tensor(3.0)}
    assert weighted_sum(losses, SOFT).item() == pytest.approx(5.0)
    assert weighted_sum(losses, tiny("gta2cs+dsp-soft", "source_mix.weight=0.5")).item() == pytest.approx(3.5)


def test_without_dsp_an_iteration_is_as_it_was() -> None:
    assert views_of("gta2cs").ss is None
    assert views_of("gta2cs").under is None


def test_an_iteration_of_dsp_trains_and_names_its_terms() -> None:
    state = begin(SOFT)
    before = [parameter.clone() for parameter in state.student.parameters()]
    losses = adaptation_step(state, *batches(SOFT), SOFT, AS_IT_IS)
    assert set(losses) == {"source", "mix", "source_mix", "total"}
    total = losses["source"] + 0.1 * losses["mix"] + losses["source_mix"]
    torch.testing.assert_close(losses["total"], total)
    assert any(not torch.equal(a, b) for a, b in zip(before, state.student.parameters(), strict=True))
