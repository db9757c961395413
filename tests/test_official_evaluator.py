"""What `fastuda eval` says and what Cityscapes' own evaluator says of the predictions that it saves."""

from __future__ import annotations

import importlib
import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from fastuda.classes import CITYSCAPES_16, CITYSCAPES_19, CITYSCAPES_IDS
from fastuda.evaluation.evaluate import evaluate
from fastuda.evaluation.load import load
from fastuda.metrics import Scores
from fastuda.model.deeplab.network import DeepLabV2
from fastuda.recipe import Recipe
from fastuda.runs.checkpoint import save_model
from fastuda_cli.main import app

WIDTH, HEIGHT = 128, 64
NAMES = [f"{city}/{city}_{i:06d}_000019" for city in ("aachen", "zurich") for i in range(3)]
ID_OF = {name: label_id for label_id, name in CITYSCAPES_IDS.items()}
NOT_AMONG_16 = [ID_OF[name] for name in CITYSCAPES_19 if name not in CITYSCAPES_16]
NEVER_LABELLED = [ID_OF[name] for name in ("wall", "bus")]

Labels = NDArray[np.uint8]


def fastuda(*arguments: object) -> None:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output


def save(pixels: Labels, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def blobs(rng: np.random.Generator, values: Iterable[int], count: int = 40) -> Labels:
    """One of `values` [HEIGHT, WIDTH] for each of `count` random places and what is nearest to it."""
    places = rng.random((count, 2)) * (HEIGHT, WIDTH)
    pixels = np.stack(np.indices((HEIGHT, WIDTH)), -1)[:, :, None]
    nearest = ((pixels - places) ** 2).sum(-1).argmin(-1)
    return rng.choice(np.array([*values], np.uint8), count)[nearest]


def picture(rng: np.random.Generator) -> Labels:
    coarse = Image.fromarray(rng.integers(0, 256, (8, 16, 3), np.uint8))
    return np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def network(recipe: Recipe) -> DeepLabV2:
    """Random weights; without the centring, one or two classes would win at every pixel."""
    torch.manual_seed(0)
    model = DeepLabV2(len(recipe.classes.build()), depth=18, width=recipe.model.width, aspp=recipe.model.aspp).eval()
    for branch in model.head.branches:
        nn.init.normal_(branch.weight)  # type: ignore[arg-type]
    with torch.no_grad():
        model.head.branches[0].bias -= model(torch.randn(4, 3, 32, 64)).logits.mean((0, 2, 3))  # type: ignore[operator]
    return model


@dataclass(frozen=True)
class Scored:
    """A data set, and what fastuda left and said."""

    root: Path
    predictions: Path
    scores: Scores
    json_iou: dict[str, float | None]

    def predicted_ids(self) -> set[int]:
        return {int(i) for file in self.predictions.rglob("*.png") for i in np.unique(np.asarray(Image.open(file)))}


@pytest.fixture
def scored(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Scored]:
    """Draws a data set, labelled with any of `ids`; has a model of `preset` predict and score it."""
    monkeypatch.setenv("FASTUDA_CACHE", str(tmp_path / "cache"))

    def run(preset: str, ids: Iterable[int]) -> Scored:
        rng = np.random.default_rng(0)
        recipe = tiny_recipe(preset=preset)
        root, weights, predictions = tmp_path / "cityscapes", tmp_path / "model.safetensors", tmp_path / "predictions"
        save_model(weights, network(recipe), recipe, {})
        for name in NAMES:
            save(picture(rng), root / f"leftImg8bit/val/{name}_leftImg8bit.png")
        fastuda("predict", weights, root / "leftImg8bit/val", "--out", tmp_path / "first", "--device", "cpu")
        for name in NAMES:
            # Right in about half of the places, so that no score is near zero.
            answer = np.asarray(Image.open(tmp_path / f"first/{name}_leftImg8bit_labelIds.png"))
            right = blobs(rng, (0, 1)).astype(np.bool_) & np.isin(answer, [*ids])
            save(np.where(right, answer, blobs(rng, ids)), root / f"gtFine/val/{name}_gtFine_labelIds.png")
        to = ["--save-predictions", predictions, "--json", tmp_path / "scores.json"]
        fastuda("eval", weights, "--target", root, "--device", "cpu", *to)
        exact = evaluate(load(weights, device="cpu"), root, display=False)
        rounded = json.loads((tmp_path / "scores.json").read_text())
        return Scored(root, predictions, exact.by_protocol["full"], rounded["full"]["iou"])

    return run


@dataclass(frozen=True)
class Official:
    """IoU as fractions, NaN where a class is absent from labels and predictions; and as printed."""

    iou: dict[str, float]
    miou: float
    printed: dict[str, str]


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[Scored], Official]:
    """The evaluator finds each label's prediction by itself, as it does on the benchmark's server."""
    for variable in ("CITYSCAPES_DATASET", "CITYSCAPES_RESULTS", "CITYSCAPES_EXPORT_DIR"):
        monkeypatch.delenv(variable, raising=False)
    evaluator = importlib.import_module("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")

    monkeypatch.setattr(evaluator, "CSUPPORT", False)
    # Instances are another score, from other files; its code also asks numpy for what numpy 2.4 has dropped.
    settings = {"evalInstLevelScore": False, "JSONOutput": False, "colorized": False, "bold": "", "nocol": ""}

    def evaluate(subject: Scored) -> Official:
        args = SimpleNamespace(**vars(evaluator.args) | settings | {"predictionPath": str(subject.predictions)})
        labels = sorted(str(path) for path in subject.root.rglob("*_gtFine_labelIds.png"))
        assert len(labels) == len(NAMES)
        capsys.readouterr()
        found = evaluator.evaluateImgLists([evaluator.getPrediction(args, label) for label in labels], labels, args)
        lines = re.findall(r"^([A-Za-z ]+?) *: +([\d.]+|nan) ", capsys.readouterr().out, re.MULTILINE)
        # The table of categories follows, with a sky and an average of its own.
        printed = dict(lines[: len(CITYSCAPES_19) + 1])
        return Official(found["classScores"], found["averageScoreClasses"], printed)

    return evaluate


def assert_alike(fastuda_percent: float, official_fraction: float) -> None:
    assert fastuda_percent / 100 == pytest.approx(official_fraction, abs=1e-9, nan_ok=True)


def test_saved_predictions_get_the_same_score_from_the_official_evaluator(
    scored: Callable[..., Scored], official: Callable[[Scored], Official]
) -> None:
    found = scored("gta2cs", [i for i in range(34) if i not in NEVER_LABELLED])
    assert len(found.predicted_ids()) >= 8
    theirs = official(found)
    assert sum(0.05 < theirs.iou[name] < 0.95 for name in CITYSCAPES_19) >= 8
    for name in CITYSCAPES_19:
        assert_alike(found.scores.iou[name], theirs.iou[name])
        rounded = found.json_iou[name]
        assert rounded is None if math.isnan(theirs.iou[name]) else abs(rounded / 100 - theirs.iou[name]) < 5.1e-7
    assert_alike(found.scores.miou, theirs.miou)


def test_every_digit_that_the_official_evaluator_prints_is_ours(
    scored: Callable[..., Scored], official: Callable[[Scored], Official]
) -> None:
    found = scored("gta2cs", range(34))
    ours = found.scores.iou | {"Score Average": found.scores.miou}
    assert official(found).printed == {name: f"{percent / 100:.3f}" for name, percent in ours.items()}


def test_a_class_that_nobody_names_has_no_score_in_either(
    scored: Callable[..., Scored], official: Callable[[Scored], Official]
) -> None:
    found = scored("gta2cs", [0, ID_OF["road"], ID_OF["sky"]])
    absent = [n for n in CITYSCAPES_19 if ID_OF[n] not in found.predicted_ids() and n not in ("road", "sky")]
    theirs = official(found)
    assert absent
    assert {n for n in CITYSCAPES_19 if math.isnan(theirs.iou[n])} == set(absent)
    assert {n for n in CITYSCAPES_19 if math.isnan(found.scores.iou[n])} == set(absent)
    assert {n for n in CITYSCAPES_19 if theirs.iou[n] == 0} == {n for n in CITYSCAPES_19 if found.scores.iou[n] == 0}
    assert_alike(found.scores.miou, theirs.miou)


def test_sixteen_classes_score_alike_where_the_other_three_are_not_labelled(
    scored: Callable[..., Scored], official: Callable[[Scored], Official]
) -> None:
    found = scored("syn2cs", [i for i in range(34) if i not in NOT_AMONG_16])
    assert len(found.predicted_ids()) >= 8
    theirs = official(found)
    for name in CITYSCAPES_16:
        assert_alike(found.scores.iou[name], theirs.iou[name])
    # The other three are neither labelled nor predicted, so the official mean leaves them out as well.
    assert_alike(found.scores.miou, theirs.miou)


def test_labels_of_the_other_three_are_ignored_by_sixteen_classes_and_false_positives_officially(
    scored: Callable[..., Scored], official: Callable[[Scored], Official]
) -> None:
    # The official evaluator has no list of classes: what is predicted on terrain, truck and train counts against
    # the class predicted, where 16-class scores leave those pixels out. It agrees once they are called unlabelled.
    found = scored("syn2cs", range(34))
    theirs = official(found)
    for name in CITYSCAPES_16:
        assert theirs.iou[name] <= found.scores.iou[name] / 100 + 1e-9
    assert sum(theirs.iou[name] < found.scores.iou[name] / 100 - 1e-3 for name in CITYSCAPES_16) >= 8
    for path in found.root.rglob("*_gtFine_labelIds.png"):
        label = np.array(Image.open(path))
        label[np.isin(label, NOT_AMONG_16)] = 0
        save(label, path)
    theirs = official(found)
    for name in CITYSCAPES_16:
        assert_alike(found.scores.iou[name], theirs.iou[name])
    assert_alike(found.scores.miou, theirs.miou)
