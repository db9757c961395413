"""HRDA's two scales against a second writing of them, and the loss of the detail."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from two_scales_small import NARROW, SIDES, images, network, two_scales, without_draws

from fastuda.errors import UsageError
from fastuda.method.segmentation import segmentation_loss
from fastuda.model.detail import Detail
from fastuda.model.passes import teaching
from fastuda.model.segmenter import Outputs, Segmenter
from fastuda.model.transformer.heads.head import Head
from fastuda.recipe.file import load_recipe

HEADS = ["mlp", "daformer", "linear"]
CLASSES = 19


def enlarged(values: Tensor) -> Tensor:
    return F.interpolate(values, scale_factor=2, mode="bilinear", align_corners=False)


# The forward pass.


@pytest.mark.parametrize("head", HEADS)
def test_training_is_the_papers_fusion_of_one_detail(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without_draws(monkeypatch, 8, 24)
    model, _ = network("segformer", f"model.head={head}", NARROW)
    theirs, batch = copy.deepcopy(model).train(), images()
    found = model.train()(batch, features=True)

    maps = theirs.backbone(F.avg_pool2d(batch, 2))
    context = theirs.head(maps)
    detail = theirs.head(theirs.backbone(batch[:, :, 8:40, 24:56]))
    share = theirs.two_scales.attention(maps).sigmoid()
    masked = torch.zeros_like(share)
    masked[:, :, 1:5, 3:7] = share[:, :, 1:5, 3:7]
    expected = enlarged((1 - masked) * context)
    inserted = torch.zeros_like(expected)
    inserted[:, :, 2:10, 6:14] = detail
    expected = expected + enlarged(masked) * inserted

    torch.testing.assert_close(found.logits, expected, rtol=1e-9, atol=1e-9)
    assert found.detail is not None
    assert (found.detail.place.tolist(), found.detail.side, found.detail.weight) == ([8, 24], 32, 0.1)
    torch.testing.assert_close(found.detail.logits, detail, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.features, maps[-1], rtol=1e-9, atol=1e-9)
    # Statistics saw the context first, as the released network's do.
    for name, value in theirs.named_buffers():
        torch.testing.assert_close(model.get_buffer(name), value, msg=name)


def test_outside_the_detail_the_context_alone_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    without_draws(monkeypatch, 8, 24)
    model, scales = network("segformer", "model.head=linear")
    torch.nn.init.zeros_(scales.attention.classify.weight)
    torch.nn.init.constant_(scales.attention.classify.bias, 50)
    found = model.train()(images())
    assert found.detail is not None
    context = enlarged(model.head(model.backbone(F.avg_pool2d(images(), 2))))
    # An attention of 1 fades over the positions at its rim.
    inside = torch.zeros(16, 32, dtype=torch.bool)
    rim = inside.clone()
    inside[3:9, 7:13] = True
    rim[1:11, 5:15] = True
    torch.testing.assert_close(found.logits[:, :, 3:9, 7:13], found.detail.logits[:, :, 1:7, 1:7])
    torch.testing.assert_close(found.logits[:, :, ~rim], context[:, :, ~rim])
    assert not torch.isclose(found.logits[:, :, inside], context[:, :, inside]).all()


@pytest.mark.usefixtures("shallow_transformers")
@pytest.mark.parametrize("kind", SIDES)
@pytest.mark.parametrize("head", HEADS)
def test_details_slide_and_are_averaged_in_evaluation(kind: str, head: str) -> None:
    model, scales = network(kind, f"model.head={head}", NARROW)
    side, stride, batch = SIDES[kind] // 2, model.output_stride, images(kind)
    model.eval()
    with torch.no_grad():
        found = model(batch)
        assert found.detail is None
        maps = model.backbone(F.avg_pool2d(batch, 2))
        share, context = scales.attention(maps).sigmoid(), model.head(maps)
        rows, columns = 2 * side // stride, 4 * side // stride
        answers = torch.full((3 * 7, *share.shape[:2], rows, columns), torch.nan).double()
        for place in range(3 * 7):
            top, left = place // 7 * (side // 2), place % 7 * (side // 2)
            answer = model.head(model.backbone(batch[:, :, top : top + side, left : left + side]))
            there = (slice(top // stride, (top + side) // stride), slice(left // stride, (left + side) // stride))
            answers[place][..., there[0], there[1]] = answer
        expected = enlarged((1 - share) * context) + enlarged(share) * answers.nanmean(0)
        torch.testing.assert_close(found.logits, expected, rtol=1e-9, atol=1e-9)
    assert model.settings is not None
    assert model.settings.positions((4 * side, 2 * side)) == found.logits[0, 0].numel()


def test_batchnorm_that_reads_its_batch_sees_all_details_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = network("segformer", "model.head=mlp", NARROW)
    seen: list[int] = []
    forward = type(model.head).forward

    def counting(head: Head, maps: list[Tensor]) -> Tensor:
        if head is model.head:
            seen.append(len(maps[0]))
        return forward(head, maps)  # type: ignore[arg-type]

    monkeypatch.setattr(type(model.head), "forward", counting)
    model.eval()
    with torch.no_grad():
        one_by_one = model(images()).logits
        assert seen == [2] * 22, "the context and 3 × 7 details"
        seen.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("fastuda.model.transformer.two_scales._together", lambda head: True)
            together = model(images()).logits
        assert seen == [2, 42]
        seen.clear()
        with teaching(model.train()):
            model(images())
        assert seen == [2, 42]
    torch.testing.assert_close(one_by_one, together, rtol=1e-9, atol=1e-9)


def test_places_are_whole_positions_and_all_of_them_occur() -> None:
    _, scales = network("segformer", "model.head=linear")
    torch.manual_seed(0)
    places = {tuple(scales.drawn_place(images()).tolist()) for _ in range(1000)}
    assert places == {(row, column) for row in range(0, 33, 8) for column in range(0, 97, 8)}


@pytest.mark.usefixtures("shallow_transformers")
@pytest.mark.parametrize("kind", SIDES)
def test_a_teacher_draws_nothing_and_a_student_draws_a_place(kind: str) -> None:
    model, _ = network(kind, "model.head=linear")
    model.train()
    before = torch.get_rng_state()
    with teaching(model), torch.no_grad():
        one, same = model(images(kind)), model(images(kind))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.logits, same.logits)
    assert one.detail is None
    torch.manual_seed(3)
    places = [model(images(kind)).detail.place for _ in range(4)]
    assert len({tuple(place.tolist()) for place in places}) > 1
    torch.manual_seed(3)
    assert torch.equal(model(images(kind)).detail.place, places[0])


@pytest.mark.parametrize("head", HEADS)
def test_features_are_the_contexts_with_and_without_heads(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = network("segformer", f"model.head={head}", NARROW)
    with torch.no_grad():
        expected = model.eval()(images(), features=True).features
        assert torch.equal(Segmenter.encode(model, images()), expected)
        monkeypatch.setattr(type(model.head), "forward", None)
        assert torch.equal(model.encode(images()), expected)
    assert expected.shape == (2, 256, 1, 2), "64×128 pixels at half their size, a position every 32"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("head", ["daformer", "linear"])
def test_it_is_exported_and_answers_the_same(head: str) -> None:
    model, _ = network("segformer", f"model.head={head}", NARROW)
    model.eval()
    exported = torch.export.export(model, (images(),)).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(images()).logits, model(images()).logits)


# Its parameters.


@pytest.mark.usefixtures("shallow_transformers")
@pytest.mark.parametrize("kind", SIDES)
@pytest.mark.parametrize("head", HEADS)
def test_every_parameter_learns_and_the_attention_as_fast_as_the_head(kind: str, head: str) -> None:
    model, scales = network(kind, f"model.head={head}", NARROW)
    model.train()(images(kind)).logits.square().sum().backward()
    assert [name for name, one in model.named_parameters() if one.grad is None] == []
    assert all(one.grad.any() for part in (model.head, scales.attention) for one in part.parameters())  # type: ignore[union-attr]
    groups = {one: group for group in model.parameter_groups() for one in group.parameters}
    assert groups.keys() == set(model.parameters())
    names = {name: groups[one] for name, one in model.named_parameters()}
    attention = names["two_scales.attention.classify.weight"]
    assert (attention.name, attention.depth) == ("head", names["head.classify.weight"].depth)


# The loss.


def reference_loss(logits: Tensor, labels: Tensor, mask: Tensor | None, weight: Tensor | None) -> Tensor:
    full = F.interpolate(logits, size=labels.shape[1:], mode="bilinear", align_corners=False)
    each = F.cross_entropy(full, labels.long(), ignore_index=255, reduction="none")
    counts = (labels != 255) if mask is None else (labels != 255) & mask
    each = each if weight is None else each * weight
    return (each * counts).sum() / counts.sum()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("weighed", [False, True])
def test_the_loss_is_shared_between_the_whole_and_the_detail(masked: bool, weighed: bool) -> None:
    torch.manual_seed(0)
    whole, own = (torch.randn(2, CLASSES, *size, dtype=torch.float64) for size in ((16, 32), (8, 8)))
    labels = torch.randint(0, CLASSES, (2, 64, 128)).to(torch.uint8)
    labels[:, 20:30, 30:60] = 255
    mask = torch.rand(labels.shape) > 0.4 if masked else None
    weight = torch.rand(labels.shape).double() if weighed else None
    there = (slice(None), slice(16, 48), slice(40, 72))

    def leaves() -> tuple[Tensor, Tensor]:
        return whole.clone().requires_grad_(), own.clone().requires_grad_()

    ours, theirs = leaves(), leaves()
    detail = Detail(ours[1], torch.tensor([16, 40]), 32, 0.3)
    loss = segmentation_loss(Outputs(ours[0], align_corners=False, detail=detail), labels, 0, mask=mask, weight=weight)
    cut = (labels[there], *(None if one is None else one[there] for one in (mask, weight)))
    expected = 0.7 * reference_loss(theirs[0], labels, mask, weight) + 0.3 * reference_loss(theirs[1], *cut)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    loss.backward()
    expected.backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-9, atol=1e-15)


def test_samples_and_shared_passes_keep_their_detail() -> None:
    logits, own, place = torch.randn(4, CLASSES, 4, 4), torch.randn(4, CLASSES, 2, 2), torch.tensor([8, 0])
    outputs = Outputs(logits, align_corners=False, detail=Detail(own, place, 16, 0.1))
    first, second = outputs.chunk(2)
    for part, samples in ((first, slice(0, 2)), (second, slice(2, 4)), (outputs.main_head(slice(1, 3)), slice(1, 3))):
        assert part.detail is not None
        assert torch.equal(part.logits, logits[samples])
        assert torch.equal(part.detail.logits, own[samples])
        assert torch.equal(part.detail.place, place)
        assert (part.detail.side, part.detail.weight) == (16, 0.1)
    assert [one.detail for one in Outputs(logits).chunk(2)] == [None, None]
    assert Outputs(logits).main_head().detail is None


# What it takes.


@pytest.mark.parametrize(
    ("kind", "changed", "words"),
    [
        ("segformer", "model.detail=36", r"detail = 36: has to be a multiple of 8 that the encoder takes, such as 40"),
        ("segformer", "model.detail=16", r"detail = 16: has to be a multiple of 8 that the encoder takes, such as 32"),
        ("dinov2", "model.detail=14", r"detail = 14: has to be a multiple of 28 .* such as 28"),
        ("segformer", "model.detail_weight=1.5", r"model\.detail_weight"),
        (
            "segformer",
            "views.crop_size=[66, 48]",
            r"views\.crop_size = \[66, 48\]: with model\.detail = 32 sides have to be multiples of 8, and 64 at least: "
            r"\[72, 64\] is",
        ),
        ("segformer", "eval.size=[128, 60]", r"eval\.size = \[128, 60\]: .*multiples of 8, .*: \[128, 64\] is"),
        ("dinov2", "views.crop_size=[70, 56]", r"detail = 28 .* multiples of 28, and 28 at least: \[84, 56\] is"),
        ("dinov3", "eval.window=[48, 64]", r"eval\.window = \[48, 64\]: .* multiples of 32, .*: \[64, 64\] is"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_those_that_do(kind: str, changed: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        two_scales(kind, changed)


@pytest.mark.parametrize("size", [(64, 24), (68, 64)])
def test_an_image_that_does_not_fit_is_named(size: tuple[int, int]) -> None:
    model, _ = network()
    width, height = size
    with pytest.raises(
        UsageError, match=rf"an image of \[{width}, {height}\]: with model\.detail = 32 sides have to be"
    ):
        model(torch.zeros(1, 3, height, width).double())


def test_one_scale_is_as_it_was() -> None:
    table: Any = load_recipe("gta2cs", ["model.kind=segformer"]).model
    assert (table.detail, table.detail_weight) == (0, 0.1)
    assert table.positions((33, 47)) == 9 * 12
    assert table.positions((28, 64)) == 0
