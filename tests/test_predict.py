"""Predictions on a user's own images, and the trained models they come from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from fastuda.checkpoint import save_model
from fastuda.classes import ClassSet, Values
from fastuda.errors import FastudaError
from fastuda.label_files import write_class_values, write_label
from fastuda.model.deeplab import DeepLabV2
from fastuda.model.digest import sealed
from fastuda.predict import Input, find_images, predict
from fastuda.recipe import Recipe
from fastuda.run_folder import RunFolder
from fastuda.trained import Trained, load_trained

LABEL_IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
SIZE = (75, 43)


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 8, 3), np.uint8)
    Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC).save(path)
    return path


def network(recipe: Recipe, **changes: Any) -> DeepLabV2:
    torch.manual_seed(1)
    settings: dict[str, Any] = {"depth": 18, "width": recipe.model.width, "aspp": recipe.model.aspp}
    model = DeepLabV2(len(recipe.classes.build()), **settings | changes)
    for branch in model.head.branches:
        torch.nn.init.normal_(branch.weight)  # type: ignore[arg-type]
    return model


@pytest.fixture
def weights(tmp_path: Path, tiny_recipe: Callable[..., Recipe]) -> Path:
    path = tmp_path / "model.safetensors"
    recipe = tiny_recipe()
    save_model(path, network(recipe), recipe, {"iteration": 3})
    return path


@pytest.fixture
def trained(weights: Path) -> Trained:
    return load_trained(weights, device="cpu")


def test_images_are_found_below_a_folder_under_their_own_folders_names(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "b/1.jpg", "a/3.jpeg", "4.png"):
        picture(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    (tmp_path / "in" / "._4.png").write_bytes(b"what macOS leaves on foreign disks")
    assert find_images([tmp_path / "in"]) == [
        Input(tmp_path / "in/4.png", "4"),
        Input(tmp_path / "in/a/3.jpeg", "a/3"),
        Input(tmp_path / "in/b/1.jpg", "b/1"),
        Input(tmp_path / "in/b/2.PNG", "b/2"),
    ]


def test_files_and_folders_can_be_mixed_in_the_order_given(tmp_path: Path) -> None:
    one, two = picture(tmp_path / "x/one.png"), picture(tmp_path / "y/two.v2.png")
    assert find_images([two, tmp_path / "x"]) == [Input(two, "two.v2"), Input(one, "one")]


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FastudaError, match=r"none\.png: no such image or folder"):
        find_images([tmp_path / "none.png"])


def test_a_folder_without_images_is_named_with_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(FastudaError, match=rf"{tmp_path.name}: no images in this folder"):
        find_images([tmp_path])


@pytest.mark.parametrize("names", [("a/1.png", "b/1.png"), ("a/1.png", "a/1.jpg")])
def test_images_that_would_overwrite_each_others_predictions_are_refused(
    names: tuple[str, str], tmp_path: Path
) -> None:
    paths = [picture(tmp_path / name) for name in names]
    with pytest.raises(FastudaError, match=r"1\.\w+ and .*1\.\w+ would both become 1"):
        find_images(paths)


def test_predictions_are_the_models_at_each_images_own_size(trained: Trained, tmp_path: Path) -> None:
    path = picture(tmp_path / "in/street.png")
    predict(trained, find_images([path]), tmp_path / "out", lambda *_: None)

    small = np.asarray(Image.open(path).resize((64, 32), Image.Resampling.BICUBIC))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        logits = trained.model(((torch.from_numpy(small.copy()) / 255 - mean) / std).permute(2, 0, 1)[None]).main
    expected = F.interpolate(logits, SIZE[::-1], mode="bilinear", align_corners=True)[0].argmax(0).numpy()
    assert len(np.unique(expected)) >= 3

    with Image.open(tmp_path / "out/street_labelIds.png") as file:
        assert (file.size, file.mode) == (SIZE, "L")
        assert (np.asarray(file) == np.array(LABEL_IDS)[expected]).mean() > 0.999
    with Image.open(tmp_path / "out/street_overlay.png") as file:
        assert (file.size, file.mode) == (SIZE, "RGB")
        colours = np.array(trained.recipe.classes.build().palette)[expected]
        blend = 0.45 * np.asarray(Image.open(path)) + 0.55 * colours
        assert (np.abs(np.asarray(file) - blend).max(-1) <= 1).mean() > 0.999


def test_predictions_lie_as_the_images_do_and_progress_is_told(trained: Trained, tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png"):
        picture(tmp_path / "in" / name)
    seen: list[tuple[int, int]] = []
    predict(trained, find_images([tmp_path / "in"]), tmp_path / "out", lambda *args: seen.append(args))
    assert seen == [(1, 2), (2, 2)]
    assert {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.png")} == {
        f"{name}_{kind}.png" for name in ("a/1", "b/1") for kind in ("labelIds", "overlay")
    }


def test_an_image_that_cannot_be_read_is_named(trained: Trained, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(picture(tmp_path / "whole.png").read_bytes()[:200])
    with pytest.raises(FastudaError, match=r"broken\.png: ends too early"):
        predict(trained, [Input(broken, "broken")], tmp_path / "out", lambda *_: None)


@pytest.mark.parametrize(
    ("names", "kind", "file", "values"),
    [
        (["water", "land"], "label-ids", "lake_labelIds.png", [0, 1]),
        (["road", "land"], "label-ids", "lake_labelIds.png", [7, 35]),
        (["land", "road"], "label-ids", "lake_labelIds.png", [35, 7]),
        (["road", "land"], "train-ids", "lake_labelTrainIds.png", [0, 1]),
    ],
)
def test_every_class_is_written_with_a_value_of_its_own_and_the_table_says_which(
    tmp_path: Path, names: list[str], kind: Values, file: str, values: list[int]
) -> None:
    classes = ClassSet.of(tuple(names))
    write_label(tmp_path, "lake", np.array([[0, 1], [1, 0]], np.uint8), classes, kind)
    assert np.asarray(Image.open(tmp_path / file)).tolist() == [values, values[::-1]]
    write_class_values(tmp_path, classes, kind)
    table = json.loads((tmp_path / "classes.json").read_text())
    assert (table["values"], table["files"]) == (kind, file.replace("lake", "*"))
    assert [(row["name"], row["value"], row["train_id"]) for row in table["classes"]] == [
        (name, value, i) for i, (name, value) in enumerate(zip(names, values, strict=True))
    ]


def test_pictures_below_linked_folders_are_found_and_a_link_back_up_ends(tmp_path: Path) -> None:
    for place in ("day1", "far/away"):
        (tmp_path / place).mkdir(parents=True)
        picture(tmp_path / place / "a.png")
    photos = tmp_path / "photos"
    (photos / ".thumbnails").mkdir(parents=True)
    picture(photos / ".thumbnails/a.png")
    (photos / "day1").symlink_to(tmp_path / "day1")
    (photos / "away").symlink_to("../far")
    (photos / "up").symlink_to("..")
    (tmp_path / "link").symlink_to(photos)
    (photos / "b.png").symlink_to(tmp_path / "day1/a.png")
    for folder in (photos, tmp_path / "link"):
        assert [item.name for item in find_images([folder])][:3] == ["away/away/a", "b", "day1/a"]
    assert "up/photos/b" not in {item.name for item in find_images([photos])}


def test_predicting_again_into_the_images_folder_leaves_its_own_files_alone(trained: Trained, tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png").rename(tmp_path / "b_overlay.png")  # a photograph of that name
    for _ in range(2):
        inputs = find_images([tmp_path])
        assert [item.name for item in inputs] == ["a", "b_overlay"]
        predict(trained, inputs, tmp_path, lambda *_: None)


def test_predictions_below_the_images_are_no_images(trained: Trained, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / "day").mkdir(parents=True)
    picture(photos / "a.png")
    picture(photos / "day/b.png")
    for _ in range(2):
        inputs = find_images([photos])
        assert [item.name for item in inputs] == ["a", "day/b"]
        predict(trained, inputs, photos / "predictions", lambda *_: None)


@pytest.mark.parametrize("file", ["a_labelIds.png", "a_overlay.png", "classes.json"])
def test_a_users_own_files_are_never_written_over(trained: Trained, tmp_path: Path, file: str) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    picture(photos / "a.png")
    (photos / file).write_text("{}")
    with pytest.raises(FastudaError, match=rf"{file}: would be overwritten, and was not written by fastuda"):
        predict(trained, [Input(photos / "a.png", "a")], photos, lambda *_: None)
    assert (photos / file).read_text() == "{}"
    assert sorted(path.name for path in photos.iterdir()) == sorted(["a.png", file])


def test_pictures_of_any_kind_are_found_in_a_folder(tmp_path: Path) -> None:
    for suffix in ("png", "JPG", "webp", "bmp", "tif"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{suffix}.{suffix}")
    assert {item.name for item in find_images([tmp_path])} == {"png", "JPG", "webp", "bmp", "tif"}


def test_a_link_that_was_copied_as_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "day1").mkdir()
    picture(tmp_path / "day1/a.png")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/day1").write_text("../day1")
    with pytest.raises(FastudaError, match=r"photos/day1: a link to \.\./day1 that was copied as text"):
        find_images([tmp_path / "photos"])


def test_a_saved_model_comes_back_with_its_weights_and_recipe(
    weights: Path, trained: Trained, tiny_recipe: Callable[..., Recipe]
) -> None:
    recipe = tiny_recipe()
    assert trained.recipe == recipe
    assert trained.file == weights
    assert not trained.model.training
    expected = network(recipe).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in trained.model.state_dict().items())


@pytest.fixture
def run_folder(tmp_path: Path, tiny_recipe: Callable[..., Recipe]) -> Path:
    recipe = tiny_recipe("seed=5")
    folder = RunFolder(tmp_path / "run")
    folder.begin(recipe, "demo")
    for number, (stage, which) in enumerate([("source_only", "last"), ("adapted", "last"), ("adapted", "best")]):
        model = network(recipe)
        torch.nn.init.constant_(model.head.branches[0].bias, number)  # type: ignore[arg-type]
        save_model(folder.model(stage, which), model, recipe, {})
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("choice", "number"),
    [({}, 1), ({"which": "best"}, 2), ({"stage": "source_only"}, 0), ({"stage": "adapted", "which": "last"}, 1)],
)
def test_a_runs_folder_stands_for_the_stage_and_checkpoint_asked_for(
    choice: dict[str, str], number: int, run_folder: Path
) -> None:
    found = load_trained(run_folder, device="cpu", **choice)
    assert found.recipe.seed == 5
    assert (found.model.head.branches[0].bias == number).all()


def test_a_model_that_the_run_lacks_is_named_with_those_it_has(run_folder: Path) -> None:
    with pytest.raises(FastudaError) as caught:
        load_trained(run_folder, stage="source_only", which="best", device="cpu")
    assert "run: no source_only-best.safetensors in this run" in str(caught.value)
    assert "there are adapted-best.safetensors, adapted-last.safetensors, source_only-last" in str(caught.value)


def test_a_run_without_any_model_says_so(tmp_path: Path, tiny_recipe: Callable[..., Recipe]) -> None:
    RunFolder(tmp_path / "run").begin(tiny_recipe(), "demo")
    with pytest.raises(FastudaError, match="it holds no evaluated model yet"):
        load_trained(tmp_path / "run", device="cpu")


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FastudaError, match="none: no such run folder or weights file"):
        load_trained(tmp_path / "none", device="cpu")


def test_a_recipe_of_another_class_count_is_refused_with_both_counts(weights: Path) -> None:
    with pytest.raises(FastudaError, match=r"the model has 19 classes, the recipe 16; choose another --recipe"):
        load_trained(weights, recipe="syn2cs", device="cpu")


def test_a_recipe_named_by_hand_takes_the_place_of_the_files_own(weights: Path) -> None:
    found = load_trained(weights, recipe="gta2cs-edge", device="cpu")
    assert found.recipe.edge.enabled


def strangers_weights(path: Path, num_classes: int, tiny_recipe: Callable[..., Recipe]) -> Path:
    """A model without its recipe."""
    names = [f"class {i}" for i in range(num_classes)]
    recipe = tiny_recipe(f"classes.names={names}", "model.aspp=[6, 12]", 'model.input="bgr-caffe"')
    save_model(path, network(recipe), recipe, {})
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = {key: value for key, value in file.metadata().items() if key != "recipe"}
    save_file(tensors, path, sealed(tensors, metadata))
    return path


@pytest.mark.parametrize(("num_classes", "layout"), [(19, "gta5"), (16, "synthia")])
def test_weights_without_a_recipe_get_the_preset_of_their_class_count(
    num_classes: int, layout: str, tmp_path: Path, tiny_recipe: Callable[..., Recipe]
) -> None:
    found = load_trained(strangers_weights(tmp_path / "w.safetensors", num_classes, tiny_recipe), device="cpu")
    assert found.recipe.source.layout == layout
    # Input convention is the file's, whatever the preset says.
    assert found.recipe.model.input == "bgr-caffe"
    assert found.passes.normalisation.bgr


def test_weights_of_an_unknown_class_count_ask_for_a_recipe(tmp_path: Path, tiny_recipe: Callable[..., Recipe]) -> None:
    path = strangers_weights(tmp_path / "w.safetensors", 7, tiny_recipe)
    with pytest.raises(FastudaError, match=r"these weights know 7 classes and do not say which.*--recipe"):
        load_trained(path, device="cpu")
