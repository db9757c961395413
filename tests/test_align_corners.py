"""A network whose logits lie over the middle of their pixels: whatever reads them does as `align_corners=False` says.

What is expected is made here from the network's logits by `F.interpolate`, never from what fastuda says of corners.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from added_modules import added
from numpy.typing import NDArray
from PIL import Image
from steps import AS_IT_IS, batches
from torch import Tensor, nn

import fastuda.evaluation.comparison as comparison_module
import fastuda.method.pseudo_labels as pseudo_labels_module
import fastuda.method.segmentation as segmentation_module
import fastuda.runtime.compiled as compiled_module
from fastuda.classes import CITYSCAPES_IDS
from fastuda.data.packing.pack import Packed
from fastuda.evaluation.evaluate import evaluate
from fastuda.evaluation.meters import BOUNDARY_RADIUS
from fastuda.evaluation.model import Model
from fastuda.evaluation.predict import Input, predict
from fastuda.evaluation.tiles import spans
from fastuda.method.state import TrainingState
from fastuda.method.step import adaptation_step, warmup_step
from fastuda.method.term import Losses
from fastuda.metrics import Scores
from fastuda.metrics.boundary import BoundaryMeter
from fastuda.metrics.boundary_map import boundary_band
from fastuda.metrics.confidence import ConfidenceMeter
from fastuda.model.build import build_network
from fastuda.model.inference import evaluation_logits
from fastuda.model.passes import Passes
from fastuda.model.segmenter import Outputs, Segmenter
from fastuda.recipe import Recipe
from fastuda.recipe.file import load_recipe
from fastuda.report.pictures import overlay
from fastuda.runs.checkpoint import save_model
from fastuda_kernels.masked_mix import normalise

FILES = {
    "patches/__init__.py": '"""Patches."""\n',
    "patches/table.py": '''
from typing import Literal
from fastuda.recipe.model import Model

class Table(Model):
    """A patch embedding and two classifiers."""
    kind: Literal["patches"] = "patches"
    @property
    def has_auxiliary(self):
        return True
    def positions(self, size):
        return (size[0] // 8) * (size[1] // 8)
''',
    "patches/family.py": """
from torch import nn
from fastuda.model.family import Family
from fastuda.model.grouped_batch_norm import GroupedBatchNorm2d
from fastuda.model.patches.table import Table
from fastuda.model.segmenter import Outputs, ParameterGroup, Segmenter

class Patches(Segmenter):
    output_stride, align_corners = 8, False
    def __init__(self, settings, num_classes):
        super().__init__(num_classes, settings)
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 8, 8), GroupedBatchNorm2d(8))
        self.head, self.auxiliary_head = nn.Conv2d(8, num_classes, 1), nn.Conv2d(8, num_classes, 1)
    def forward(self, images, *, features=False):
        x = self.backbone(images)
        return Outputs(self.head(x), self.auxiliary_head(x), x if features else None)
    def parameter_groups(self):
        heads = [*self.head.parameters(), *self.auxiliary_head.parameters()]
        return [ParameterGroup("backbone", [*self.backbone.parameters()]), ParameterGroup("head", heads, depth=1)]

class PatchesFamily(Family[Table]):
    table = Table
    def build(self, settings, num_classes):
        return Patches(settings, num_classes)

FAMILY = PatchesFamily()
""",
}
CPU = torch.device("cpu")
SIZE = (90, 46)
LABEL_IDS = np.array([*CITYSCAPES_IDS], np.uint8)


@pytest.fixture(autouse=True)
def _patches(tmp_path: Path) -> Iterator[None]:
    with added("fastuda.model", tmp_path / "contributed", FILES):
        yield


def patches(name: str = "gta2cs", *settings: str) -> tuple[Recipe, Segmenter]:
    """A recipe, and its network with opinions."""
    recipe = load_recipe(name, ["model.kind=patches", "eval.size=[64, 32]", "runtime.loader_threads=1", *settings])
    torch.manual_seed(0)
    network = build_network(recipe)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0, 2 / module.weight[0].numel() ** 0.5)
    return recipe, network


def upsampled(logits: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def cross_entropy(
    logits: Tensor, labels: Tensor, *, mask: Tensor | None = None, weight: Tensor | None = None, **_: Any
) -> Tensor:
    full = upsampled(logits, labels.shape[1:])
    each = F.cross_entropy(full, labels.long(), ignore_index=255, reduction="none")
    counted = (labels != 255) if mask is None else (labels != 255) & mask
    each = each if weight is None else each * weight
    return torch.where(counted, each, 0).sum() / counted.sum().clamp(min=1)


def pseudo_label(
    logits: Tensor,
    size: tuple[int, int],
    *,
    auxiliary: Tensor | None = None,
    view_size: tuple[int, int] | None = None,
    boxes: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Of the whole view, of which crops are cut: boxes at whole pixels, as large as the crops."""
    heads = [logits] if auxiliary is None else [logits, auxiliary]
    probability = torch.stack([upsampled(head, view_size or size).softmax(1) for head in heads]).mean(0)
    if boxes is not None:
        assert torch.equal(boxes[:, 2:], torch.tensor(size).expand(len(boxes), 2))
        corners = [(int(top), int(left)) for top, left in boxes[:, :2]]
        cut = [one[:, y : y + size[0], x : x + size[1]] for one, (y, x) in zip(probability, corners, strict=True)]
        probability = torch.stack(cut)
    confidence, label = probability.max(1)
    return label.to(torch.uint8), confidence.float()


def losses_of(recipe: Recipe, network: Segmenter, passes: Passes) -> list[Losses]:
    """Of one iteration of either stage; in fp64, so that no label turns on rounding."""
    passes = replace(passes, normalisation=AS_IT_IS.normalisation._replace(dtype=torch.float64))
    state = TrainingState.begin(network.double().train(), recipe.train.optimizer, 10, recipe.method.ema_decay)
    source, target = batches(recipe)
    return [warmup_step(state, source, recipe, passes), adaptation_step(state, source, target, recipe, passes)]


LOW_TAU = "method.tau=0.3"
"""Both sides of it are common in the pseudo-labels of such a network."""


RELEASED_EDGE = ("gta2cs-edge+released", ('train.optimizer.backbone_updates="one"',))


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("gta2cs", ()),
        ("gta2cs", ("views.whole=false",)),
        ("gta2cs", ('htcm.from="mixed"', 'auxiliary.labels="prediction"')),
        ("gta2cs-edge", ()),
        RELEASED_EDGE,
        ("gta2cs+dsp-soft", ()),
    ],
)
def test_losses_and_pseudo_labels_are_those_of_interpolated_logits(
    name: str, settings: tuple[str, ...], grouped: bool
) -> None:
    recipe, network = patches(name, LOW_TAU, *settings)
    passes = replace(AS_IT_IS, grouped=grouped)
    found = losses_of(recipe, network, passes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segmentation_module, "upsample_cross_entropy", cross_entropy)
        patch.setattr(pseudo_labels_module, "pseudo_label", pseudo_label)
        expected = losses_of(*patches(name, LOW_TAU, *settings), passes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(network), "align_corners", True)
        aligned = losses_of(*patches(name, LOW_TAU, *settings), passes)
    for ours, theirs, others in zip(found, expected, aligned, strict=True):
        assert ours.keys() == theirs.keys()
        for term, loss in theirs.items():
            assert float(loss) > 0, term
            torch.testing.assert_close(ours[term], loss, rtol=1e-9, atol=0, msg=term)
            if term not in ("pixel", "prototype"):  # which read logits where they are
                assert not torch.isclose(others[term], loss, rtol=1e-4, atol=0), term


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiled_losses_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    trace: Callable[..., Any] = functools.partial(torch.compile, fullgraph=True, dynamic=False, backend="aot_eager")
    monkeypatch.setattr(compiled_module, "_compiled", functools.cache(trace))
    torch.compiler.reset()
    name, settings = RELEASED_EDGE
    expected = losses_of(*patches(name, LOW_TAU, *settings), AS_IT_IS)
    found = losses_of(*patches(name, LOW_TAU, *settings), replace(AS_IT_IS, compiled=True, grouped=True))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for term, loss in theirs.items():
            torch.testing.assert_close(ours[term], loss, rtol=1e-6, atol=0, msg=term)


def test_a_forward_that_says_so_itself_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    _, network = patches()
    images = torch.zeros(1, 3, 16, 16)
    assert network(images).align_corners
    assert not AS_IT_IS.normalised(network, images).align_corners
    forward = type(network).forward
    with monkeypatch.context() as patch:
        patch.setattr(type(network), "align_corners", True)
        assert AS_IT_IS.normalised(network, images).align_corners
        patch.setattr(type(network), "forward", lambda *args: forward(*args)._replace(align_corners=False))
        assert not AS_IT_IS.normalised(network, images).align_corners


def test_parts_of_an_answer_lie_as_the_whole_does() -> None:
    whole = Outputs(torch.rand(4, 3, 2, 2), torch.rand(4, 3, 2, 2), torch.rand(4, 5, 2, 2), align_corners=False)
    main, auxiliary = whole.main_head(slice(1)), whole.auxiliary_head()
    assert torch.equal(main.logits, whole.logits[:1])
    assert torch.equal(auxiliary.logits, whole.auxiliary)  # type: ignore[arg-type]
    first, second = whole.chunk(2)
    assert torch.equal(torch.cat([first.logits, second.logits]), whole.logits)
    assert torch.equal(torch.cat([first.features, second.features]), whole.features)  # type: ignore[arg-type]
    assert not any(part.align_corners for part in (main, auxiliary, first, second))
    assert all(part.auxiliary is None and part.features is None for part in (main, auxiliary))


AUGMENTED: list[dict[str, Any]] = [{}, {"flip": True}, {"scales": (0.5, 1.25)}, {"flip": True, "scales": (1.0, 1.5)}]


def model(**changes: Any) -> Model:
    recipe, network = patches()
    passes = Passes.of(recipe, CPU)
    return Model(network.eval(), recipe, passes, CPU, Path("none")).augmented(**changes)


def expected_logits(model: Model, images: Tensor) -> Tensor:
    """Of uint8 [B, H, W, 3]: the network's own or, augmented, the logarithm of the mean [B, C, H, W]."""
    settings = model.recipe.eval
    size = (images.shape[1], images.shape[2])

    def own(pixels: Tensor) -> Tensor:
        with torch.no_grad():
            return model.network(normalise(pixels, model.passes.normalisation)).logits

    if not settings.flip and settings.scales == (1.0,):
        return own(images)
    answers = []
    for scale in settings.scales:
        planes, sides = images.permute(0, 3, 1, 2).float(), tuple(round(side * scale) for side in size)
        if scale != 1:
            planes = F.interpolate(planes, size=sides, mode="bicubic", align_corners=False, antialias=True)
        pixels = planes.round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()
        answers.append(upsampled(own(pixels), size).softmax(1))
        if settings.flip:
            answers.append(upsampled(own(pixels.flip(2)), size).flip(3).softmax(1))
    return torch.stack(answers).mean(0).log()


def picture(size: tuple[int, int], seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 12, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def pixels_of(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image).copy())[None]


def expected_answer(model: Model, image: Image.Image) -> tuple[NDArray[np.uint8], Tensor]:
    """Label [H, W] and probabilities [1, C, H, W] at the image's own size, as read whole."""
    small = image.resize(model.recipe.eval.size, Image.Resampling.BICUBIC)
    full = upsampled(expected_logits(model, pixels_of(small)), image.size[::-1])
    return full.argmax(1)[0].byte().numpy(), full.softmax(1)


@pytest.mark.parametrize("changes", AUGMENTED)
def test_answers_of_test_time_augmentation_are_those_of_interpolated_logits(changes: dict[str, Any]) -> None:
    one, images = model(**changes), torch.cat([pixels_of(picture((64, 32), seed)) for seed in (0, 1)])
    found = evaluation_logits(one.network, images, one.recipe.eval, one.passes)
    assert not found.align_corners
    torch.testing.assert_close(found.logits, expected_logits(one, images), rtol=1e-4, atol=1e-5)
    assert found.auxiliary is None


@pytest.mark.parametrize("changes", AUGMENTED)
def test_predictions_are_those_of_interpolated_logits(changes: dict[str, Any], tmp_path: Path) -> None:
    one, image = model(**changes), picture(SIZE)
    expected, probability = expected_answer(one, image)
    assert len(np.unique(expected)) >= 3
    label, confidence = one.predict(image, return_confidence=True)
    assert (label == expected).mean() > 0.999
    torch.testing.assert_close(torch.from_numpy(confidence), probability.amax(1)[0], rtol=1e-4, atol=1e-5)
    image.save(tmp_path / "a.png")
    predict(one, [Input(tmp_path / "a.png", "a")], tmp_path / "out", lambda *_: None, "train-ids")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/a_labelTrainIds.png")), label)


@pytest.mark.parametrize("changes", AUGMENTED[:2])
def test_windows_are_predicted_as_images_are(changes: dict[str, Any]) -> None:
    one, image = model(**changes), picture((150, 77))
    expected = np.empty((77, 150), np.uint8)
    for down in spans(77, 32):
        for across in spans(150, 64):
            window = image.crop((across.start, down.start, across.stop, down.stop))
            full = upsampled(expected_logits(one, pixels_of(window)), window.size[::-1]).argmax(1)[0].numpy()
            at = slice(down.own_start, down.own_stop), slice(across.own_start, across.own_stop)
            whole = np.zeros((77, 150), np.uint8)
            whole[down.start : down.stop, across.start : across.stop] = full
            expected[at] = whole[at]
    assert (one.predict(image, tiled=True) == expected).mean() > 0.999


@pytest.mark.parametrize("changes", AUGMENTED[:2])
def test_scores_and_label_files_are_those_of_interpolated_logits(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTUDA_CACHE", str(tmp_path / "cache"))
    one, root, rng = model(**changes), tmp_path / "cityscapes", np.random.default_rng(0)
    names, num_classes = [f"a/a_00000{i}_000019" for i in range(2)], len(one.classes)
    boundary, confidence = BoundaryMeter(num_classes, CPU), ConfidenceMeter(num_classes, CPU, (one.recipe.method.tau,))
    pairs: dict[str, list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]] = {"full": [], "released": []}
    for seed, name in enumerate(names):
        image = picture(SIZE, seed)
        predicted, probability = expected_answer(one, image)
        wrong = rng.integers(0, num_classes, (6, 9)).repeat(8, 0).repeat(10, 1)[: SIZE[1], : SIZE[0]]
        label = np.where(wrong % 2, predicted, wrong).astype(np.uint8)
        for pixels, file in (
            (np.asarray(image), root / f"leftImg8bit/val/{name}_leftImg8bit.png"),
            (LABEL_IDS[label], root / f"gtFine/val/{name}_gtFine_labelIds.png"),
        ):
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
        pairs["full"].append((label, predicted))
        small = F.interpolate(torch.from_numpy(label)[None, None].float(), size=(32, 64), mode="nearest-exact")
        logits = expected_logits(one, pixels_of(image.resize((64, 32), Image.Resampling.BICUBIC)))
        pairs["released"].append((small[0, 0].byte().numpy(), upsampled(logits, (32, 64)).argmax(1)[0].byte().numpy()))
        guess, truth = torch.from_numpy(predicted), torch.from_numpy(label)
        boundary.add(guess, truth)
        confidence.add(guess, probability.amax(1)[0], truth, boundary_band(truth, BOUNDARY_RADIUS, num_classes))

    found = evaluate(one, root, boundary=True, save_predictions=tmp_path / "out", values="train-ids", display=False)
    for protocol, each in pairs.items():
        expected = scores(each, one.classes.names, protocol)
        assert found.by_protocol[protocol].iou == pytest.approx(expected.iou, abs=0.1, nan_ok=True)
        assert 20 < expected.pixel_accuracy < 90
        assert found.by_protocol[protocol].pixel_accuracy == pytest.approx(expected.pixel_accuracy, abs=0.05)
    for name, (_, predicted) in zip(names, pairs["full"], strict=True):
        with Image.open(tmp_path / f"out/{name}_labelTrainIds.png") as file:
            assert (np.asarray(file) == predicted).mean() > 0.999
    assert found.boundary is not None
    assert found.confidence is not None
    f_scores = boundary.result(one.classes.names, "full").f_score
    assert found.boundary.f_score[1].mean == pytest.approx(f_scores[1].mean, abs=0.1)
    assert found.confidence.ece == pytest.approx(confidence.result().ece, abs=0.02)


def scores(
    pairs: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]], names: tuple[str, ...], protocol: str
) -> Scores:
    confusion = np.zeros((len(names), len(names)), np.int64)
    for label, predicted in pairs:
        np.add.at(confusion, (label, predicted), 1)
    return Scores.of(confusion, names, protocol)


def test_the_picture_of_models_shows_interpolated_logits(
    pack: Callable[..., Packed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, rows = model(), list[Any]()
    image = picture((64, 32))
    evaluation = pack(one.recipe, [np.asarray(image)], [np.zeros((32, 64), np.uint8)], own_label_size=True)
    monkeypatch.setattr(comparison_module, "grid", lambda columns, shown, classes: rows.extend(shown))
    monkeypatch.setattr(comparison_module, "save_picture", lambda *_: None)
    save_model(tmp_path / "adapted", one.network, one.recipe, {})
    models = [("adapted", tmp_path / "adapted")]
    comparison_module.comparison_grid(tmp_path / "grid.png", models, evaluation, one.recipe, one.passes, CPU)
    predicted, _ = expected_answer(one, image)
    expected = overlay(np.asarray(image), predicted, one.classes, 1.0)
    assert (rows[0][2] == expected).all(-1).mean() > 0.999
