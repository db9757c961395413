"""One iteration of each stage: passes through the network, gradients, teachers, fixed shapes, no host sync."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from steps import AS_IT_IS, NUM_IMAGES, VIEW, Witness, batches, begin, differ, tensors, tiny
from torch import Tensor

from fastuda.method.draws import Draws
from fastuda.method.losses import mixed_losses, weighted_sum
from fastuda.method.mixing import mixed_views
from fastuda.method.pseudo_labels import label_target
from fastuda.method.segmentation import segmentation_loss
from fastuda.method.state import TrainingState
from fastuda.method.step import adaptation_step, warmup_step
from fastuda.model.deeplab.network import DeepLabV2
from fastuda.model.passes import Passes
from fastuda.model.segmenter import Outputs
from fastuda_kernels.operators import INTERPRETED

STEPS = ["gta2cs", "gta2cs-released", "gta2cs-edge", "gta2cs-edge+released", "gta2cs-fast"]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Convolutions this small spend their time waiting for the other threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# What the network sees, told by pixel values; the untrained network is nowhere sure, so x_hts shows no target pixel.
VIEWS: dict[str, set[float]] = {
    "source view": {1},
    "target view": {2},
    "source crop": {10},
    "target crop": {30},
    "weak": {10, 30},
    "strong": {10, 40},
    "hts": {20},
    "hts with paste": {10, 20},
}


def passes_of(model: DeepLabV2) -> list[str]:
    """The passes in order; those without gradient in brackets."""
    assert isinstance(model, Witness)
    names = []
    for values, with_gradient, training in model.seen:
        assert training, "BatchNorm uses batch statistics in every pass of an iteration"
        (name,) = [name for name, expected in VIEWS.items() if expected == values]
        names.append(name if with_gradient else f"({name})")
    return names


def witnessed(name: str, *settings: str) -> TrainingState:
    """The state after one adaptation step of witnesses on plain crops."""
    recipe = tiny(name, *settings)
    state = begin(recipe, Witness)
    state.evaluation_model()  # as after an evaluation: the averaged model is in eval mode
    adaptation_step(state, *batches(recipe, plain=True), recipe, AS_IT_IS)
    return state


@pytest.mark.parametrize("name", ["gta2cs", "syn2cs", "demo", "gta2cs-released"])
def test_an_iteration_is_four_passes_with_gradient_and_one_without(name: str) -> None:
    state = witnessed(name)
    assert passes_of(state.student) == ["source view", "(target view)", "strong", "weak", "hts"]
    assert passes_of(state.averaged) == []


def test_the_edge_variant_makes_the_same_passes_and_keeps_pasted_source_pixels_on_x_hts() -> None:
    state = witnessed("gta2cs-edge")
    assert passes_of(state.student) == ["source view", "(target view)", "strong", "weak", "hts with paste"]


def test_the_released_edge_variant_passes_the_target_crop_too_with_batch_statistics_and_without_gradient() -> None:
    state = witnessed("gta2cs-edge+released", "mix.off_by_one=false", "mix.min_class=0")
    expected = ["source view", "(target view)", "strong", "weak", "(target crop)", "hts with paste"]
    assert passes_of(state.student) == expected


def test_the_fast_recipe_reads_crops_alone_and_its_teacher_is_the_average() -> None:
    state = witnessed("gta2cs-fast")
    assert passes_of(state.student) == ["source crop", "strong", "weak", "hts"]
    assert passes_of(state.averaged) == ["(target crop)"]


def test_with_an_ema_teacher_the_student_is_not_run_on_the_target_view() -> None:
    state = witnessed("gta2cs", 'method.teacher="ema"')
    assert passes_of(state.student) == ["source view", "strong", "weak", "hts"]
    assert passes_of(state.averaged) == ["(target view)"]


def test_passes_that_no_loss_needs_are_not_made() -> None:
    no_contrast = ("contrast.pixel=false", "contrast.prototype=false")
    both = ["source view", "(target view)"]
    assert passes_of(witnessed("gta2cs", "mix.enabled=false", *no_contrast).student) == [*both, "hts"]
    assert passes_of(witnessed("gta2cs", "htcm.enabled=false").student) == [*both, "strong", "weak"]
    assert passes_of(witnessed("gta2cs", *no_contrast).student) == [*both, "strong", "hts"]
    assert passes_of(witnessed("gta2cs", "mix.enabled=false", "htcm.enabled=false", *no_contrast).student) == both


def terms_of(name: str, *settings: str) -> list[str]:
    recipe = tiny(name, *settings)
    return list(adaptation_step(begin(recipe), *batches(recipe), recipe, AS_IT_IS))


@pytest.mark.parametrize("name", ["gta2cs", "gta2cs-released", "gta2cs-fast", "syn2cs"])
def test_terms_of_equation_12(name: str) -> None:
    assert terms_of(name) == ["source", "mix", "htcm", "pixel", "prototype", "total"]


def test_terms_of_the_edge_variant() -> None:
    edge = ["edge_mix", "htcm", "edge_htcm", "edge_htcm_auxiliary"]
    assert terms_of("gta2cs-edge") == ["source", "mix", *edge, "pixel", "prototype", "total"]


def test_terms_of_the_papers_ablations() -> None:
    no_contrast = ("contrast.pixel=false", "contrast.prototype=false")
    assert terms_of("gta2cs", "htcm.enabled=false", *no_contrast) == ["source", "mix", "total"]
    assert terms_of("gta2cs", "mix.enabled=false", *no_contrast) == ["source", "htcm", "total"]
    assert terms_of("gta2cs", *no_contrast) == ["source", "mix", "htcm", "total"]
    assert terms_of("gta2cs", "contrast.prototype=false") == ["source", "mix", "htcm", "pixel", "total"]
    assert terms_of("gta2cs", 'contrast.on="hts"') == ["source", "mix", "htcm", "pixel", "prototype", "total"]
    assert terms_of("gta2cs", "mix.enabled=false", "htcm.enabled=false", *no_contrast) == ["source", "total"]


def gradients(model: DeepLabV2) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", STEPS)
def test_the_steps_gradient_and_total_are_those_of_equation_12(name: str) -> None:
    recipe = tiny(name)
    state, (source, target) = begin(recipe), batches(recipe)
    twin, teacher = copy.deepcopy(state.student), copy.deepcopy(state.student)

    images, labels = (source.view, source.view_label) if recipe.views.whole else (source.weak, source.label)
    assert images is not None
    assert labels is not None
    losses = {"source": segmentation_loss(AS_IT_IS.raw(twin, images), labels, 0.1)}
    draws = Draws(recipe.seed, torch.zeros((), dtype=torch.int64))
    pseudo = label_target(teacher, target, AS_IT_IS)
    views = mixed_views(twin, source, target, pseudo, recipe, AS_IT_IS, draws)
    total = weighted_sum(losses | mixed_losses(views, recipe), recipe)
    total.backward()

    step_losses = adaptation_step(state, source, target, recipe, AS_IT_IS)
    torch.testing.assert_close(step_losses["total"], total.detach())
    ours, expected = gradients(state.student), gradients(twin)
    assert ours.keys() == expected.keys()
    for parameter, gradient in ours.items():
        tolerance = 1e-4 * float(expected[parameter].abs().max())
        torch.testing.assert_close(gradient, expected[parameter], rtol=1e-3, atol=tolerance + 1e-7, msg=parameter)


@pytest.mark.parametrize("name", STEPS)
def test_the_step_is_the_same_with_grouped_passes(name: str) -> None:
    recipe = tiny(name)
    plain, together = begin(recipe), begin(recipe)
    expected = adaptation_step(plain, *batches(recipe), recipe, AS_IT_IS)
    actual = adaptation_step(together, *batches(recipe), recipe, replace(AS_IT_IS, grouped=True))
    for term, loss in expected.items():
        torch.testing.assert_close(actual[term], loss, rtol=1e-4, atol=1e-5, msg=term)
    for (buffer, ours), separate in zip(together.student.named_buffers(), plain.student.buffers(), strict=True):
        torch.testing.assert_close(ours, separate, rtol=1e-4, atol=1e-5, msg=buffer)


def test_grouped_passes_are_fewer_and_larger() -> None:
    recipe = tiny("gta2cs")
    state = begin(recipe, Witness)
    adaptation_step(state, *batches(recipe, plain=True), recipe, replace(AS_IT_IS, grouped=True))
    seen = [images for images, _, _ in state.student.seen]  # type: ignore[union-attr,operator]
    assert len(seen) == 3
    assert seen[2] == VIEWS["weak"] | VIEWS["strong"] | VIEWS["hts"]


@pytest.mark.skipif(not INTERPRETED, reason="on a GPU the kernels take no CPU tensors")
@pytest.mark.parametrize("name", STEPS)
def test_the_step_is_the_same_on_the_kernels(name: str, request: pytest.FixtureRequest) -> None:
    # An untrained network is sure of nothing; a low threshold gives HTCM and the prototypes something to do.
    recipe = tiny(name, "method.tau=0.06")
    plain, fused = begin(recipe), begin(recipe)
    expected = adaptation_step(plain, *batches(recipe), recipe, AS_IT_IS)
    request.getfixturevalue("kernels_everywhere")
    actual = adaptation_step(fused, *batches(recipe), recipe, AS_IT_IS)
    for term, loss in expected.items():
        torch.testing.assert_close(actual[term], loss, rtol=1e-4, atol=1e-5, msg=term)
    ours = gradients(fused.student)
    for parameter, gradient in gradients(plain.student).items():
        tolerance = 1e-3 * float(gradient.abs().max()) + 1e-6
        torch.testing.assert_close(ours[parameter], gradient, rtol=1e-3, atol=tolerance, msg=parameter)


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.usefixtures("poisoned")
def test_the_step_reads_no_memory_that_nobody_wrote(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny(name, "method.tau=0.06")
    poisoned, unpoisoned = begin(recipe), begin(recipe)
    adaptation_step(poisoned, *batches(recipe), recipe, AS_IT_IS)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)
    adaptation_step(unpoisoned, *batches(recipe), recipe, AS_IT_IS)
    assert differ(tensors(poisoned), tensors(unpoisoned)) == []


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("together", [True, False])
def test_images_enter_the_network_in_the_memory_format_asked_for(channels_last: bool, together: bool) -> None:
    seen: list[bool] = []

    class Noting(DeepLabV2):
        def forward(self, images: Tensor) -> Outputs:
            seen.append(images.is_contiguous(memory_format=torch.channels_last))
            return super().forward(images)

    recipe = tiny("gta2cs")
    passes = replace(AS_IT_IS, grouped=together, channels_last=channels_last)
    adaptation_step(begin(recipe, Noting), *batches(recipe), recipe, passes)
    assert set(seen) == {channels_last}


def test_gradients_do_not_pile_up_over_iterations() -> None:
    recipe = tiny("gta2cs", "train.optimizer.lr_backbone=1e-12", "train.optimizer.lr_head=1e-12")
    state, (source, target) = begin(recipe), batches(recipe)
    adaptation_step(state, source, target, recipe, AS_IT_IS)
    first = gradients(state.student)["head.branches.0.weight"]
    adaptation_step(state, source, target, recipe, AS_IT_IS)
    torch.testing.assert_close(gradients(state.student)["head.branches.0.weight"], first, rtol=1e-3, atol=1e-4)


def test_losses_are_detached_and_everything_an_iteration_changes_has_changed() -> None:
    recipe = tiny("gta2cs")
    state = begin(recipe)
    before = state.student.head.branches[0].weight.detach().clone()
    losses = adaptation_step(state, *batches(recipe), recipe, AS_IT_IS)
    after, averaged = (model.head.branches[0].weight.detach() for model in (state.student, state.averaged))
    assert not any(loss.requires_grad for loss in losses.values())
    assert not torch.equal(after, before)
    torch.testing.assert_close(averaged, 0.999 * before + 0.001 * after)
    assert int(state.iteration) == 1
    assert int(state.first_nonfinite) == -1


def test_the_student_learns_nothing_from_being_the_teacher() -> None:
    recipe = tiny("gta2cs")
    state, (_, target) = begin(recipe), batches(recipe)
    pseudo = label_target(state.student, target, AS_IT_IS)
    assert not pseudo.confidence.requires_grad
    assert gradients(state.student) == {}


def test_pseudo_labels_are_cut_out_of_the_view_where_the_boxes_lie() -> None:
    recipe = tiny("gta2cs")
    state, (_, target) = begin(recipe), batches(recipe)
    whole = target._replace(weak=target.view, boxes=torch.tensor([[0.0, 0.0, *VIEW]] * NUM_IMAGES))
    crops, views = (label_target(state.student, batch, AS_IT_IS) for batch in (target, whole))
    # The boxes have the crop's own size, so each crop is a window of its whole view's labels.
    for image, (top, left) in enumerate([(4, 20), (0, 3), (8, 24)]):
        window = (image, slice(top, top + 16), slice(left, left + 16))
        torch.testing.assert_close(crops.confidence[image], views.confidence[window])
        assert torch.equal(crops.label[image], views.label[window])
        assert torch.equal(crops.two_head[image], views.two_head[window])


def test_warm_up_learns_the_source_loss_of_both_heads_alone() -> None:
    recipe = tiny("gta2cs")
    state, (source, _) = begin(recipe, Witness), batches(recipe)
    twin = copy.deepcopy(state.student)
    assert source.view is not None
    assert source.view_label is not None
    expected = segmentation_loss(AS_IT_IS.raw(twin, source.view), source.view_label, 0.1)
    expected.backward()
    losses = warmup_step(state, source, recipe, AS_IT_IS)
    assert list(losses) == ["source", "total"]
    torch.testing.assert_close(losses["total"], expected.detach())
    assert gradients(state.student).keys() == gradients(twin).keys()
    for name, gradient in gradients(state.student).items():
        torch.testing.assert_close(gradient, gradients(twin)[name], msg=name)
    assert int(state.iteration) == 1


def test_warm_up_passes_the_source_view_once_or_the_crop_in_a_recipe_of_crops() -> None:
    for name, expected in (("gta2cs", "source view"), ("gta2cs-fast", "source crop")):
        recipe = tiny(name)
        state = begin(recipe, Witness)
        warmup_step(state, batches(recipe, plain=True)[0], recipe, AS_IT_IS)
        assert passes_of(state.student) == [expected]


def test_input_conventions_by_hand() -> None:
    pixel, cpu = torch.tensor([[[[10, 20, 40]]]], dtype=torch.uint8), torch.device("cpu")
    seen: list[list[float]] = []

    def note(images: Tensor) -> Outputs:
        seen.append(images.flatten().tolist())
        return Outputs(images, None)

    network: Any = note
    network.align_corners = True
    Passes.of(tiny("gta2cs"), cpu).raw(network, pixel)
    Passes.of(tiny("gta2cs", 'model.input="bgr-caffe"'), cpu).raw(network, pixel)
    rgb = [(10 / 255 - 0.485) / 0.229, (20 / 255 - 0.456) / 0.224, (40 / 255 - 0.406) / 0.225]
    assert seen == [pytest.approx(rgb), pytest.approx([40 - 104.00698793, 20 - 116.66876762, 10 - 122.67891434])]
