"""From a recipe to a network: where weights come from, and which of their conventions hold."""

from __future__ import annotations

import hashlib
import logging
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch

from fastuda.errors import FastudaError
from fastuda.model.build import build_model, read_model
from fastuda.model.deeplab.network import DeepLabV2
from fastuda.recipe import Recipe
from fastuda.recipe.file import load_recipe
from fastuda.runs.checkpoint import save_model


def recipe(*settings: str) -> Recipe:
    return load_recipe("gta2cs", ["model.depth=18", "model.width=0.125", *settings])


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    """A ResNet-18 of width 1/8 under torchvision's key names."""
    state = DeepLabV2(19, depth=18, width=0.125).backbone.state_dict()
    torch.save({**state, "fc.weight": torch.zeros(3, 64), "fc.bias": torch.zeros(3)}, tmp_path / "backbone.pth")
    return tmp_path / "backbone.pth"


def test_a_random_start_is_announced_and_follows_the_seed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one, _ = build_model(recipe("model.weights=random"), tmp_path)
    same, _ = build_model(recipe("model.weights=random"), tmp_path)
    other, _ = build_model(recipe("model.weights=random", "seed=1"), tmp_path)
    assert "training from scratch" in caplog.text
    weight = "backbone.layer1.0.conv1.weight"
    assert torch.equal(one.state_dict()[weight], same.state_dict()[weight])
    assert not torch.equal(one.state_dict()[weight], other.state_dict()[weight])


def test_every_batch_norm_takes_the_recipes_momentum(tmp_path: Path) -> None:
    settings = recipe("model.weights=random", "model.batch_norm_momentum=0.02")
    model, _ = build_model(settings, tmp_path)
    momenta = {layer.momentum for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm2d)}
    assert momenta == {0.02}


def test_torchvision_weights_keep_the_protocols_stride_and_bring_their_input(backbone: Path, tmp_path: Path) -> None:
    model, resolved = build_model(recipe(f"model.weights={backbone}", "model.input='bgr-caffe'"), tmp_path)
    assert resolved.model.input == "rgb-imagenet"
    assert resolved.model.stride_on == "1x1"
    assert resolved.model.pool_padding == 1
    expected = torch.load(backbone, weights_only=True)["layer2.0.conv1.weight"]
    assert torch.equal(model.state_dict()["backbone.layer2.0.conv1.weight"], expected)


def test_caffe_weights_bring_input_and_pooling(backbone: Path, tmp_path: Path) -> None:
    settings = (f"model.weights={backbone}", "model.convention='caffe'")
    model, resolved = build_model(recipe(*settings), tmp_path)
    assert (resolved.model.input, resolved.model.pool_padding) == ("bgr-caffe", 0)
    assert model.pool_padding == 0


def test_the_authors_own_start_is_taken_as_it_is(tmp_path: Path) -> None:
    """A file as their code reads it: Caffe's ResNet under `Scale.`, 21 classes' classifier, old torch's format."""
    own = DeepLabV2(21, depth=50, width=0.25)
    backbone = {f"Scale.{k}": v for k, v in own.backbone.state_dict().items() if "num_batches_tracked" not in k}
    head = {k.removeprefix("branches."): v for k, v in own.head.state_dict().items()}
    classifier = {f"Scale.layer5.conv2d_list.{k}": v for k, v in head.items()}
    path = tmp_path / "DeepLab_resnet_pretrained_init-f81d91e8.pth"
    torch.save(backbone | classifier, path, _use_new_zipfile_serialization=False)
    settings = ["model.depth=50", "model.width=0.25", f"model.weights={path}"]
    model, resolved = build_model(load_recipe("gta2cs-released", settings), tmp_path)
    assert (resolved.model.input, resolved.model.stride_on, resolved.model.pool_padding) == ("bgr-caffe", "1x1", 1)
    assert resolved.model.aspp == (6, 12)
    found = model.state_dict()
    assert all(found[k.replace("Scale.", "backbone.")].equal(v) for k, v in backbone.items())
    assert found["head.branches.0.weight"].shape[0] == 19


def test_what_is_left_out_of_a_file_is_logged(backbone: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        build_model(recipe(f"model.weights={backbone}"), tmp_path)
    assert "fc.weight, fc.bias left out" in caplog.text


def test_init_brings_heads_and_dilations(tmp_path: Path) -> None:
    released = DeepLabV2(19, depth=18, width=0.125, aspp=(6, 12))
    save_model(tmp_path / "model.safetensors", released, recipe(), {})
    model, resolved = build_model(recipe("model.weights=random"), tmp_path, tmp_path / "model.safetensors")
    assert resolved.model.aspp == (6, 12)
    assert torch.equal(model.state_dict()["head.branches.1.bias"], released.state_dict()["head.branches.1.bias"])


def test_init_refuses_a_bare_backbone(backbone: Path, tmp_path: Path) -> None:
    with pytest.raises(FastudaError, match="backbone without a classifier; use --set"):
        build_model(recipe(), tmp_path, backbone)


def test_weights_by_url_are_fetched_and_their_hash_is_checked(backbone: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(backbone.read_bytes()).hexdigest()
    build_model(recipe(f"model.weights={backbone.as_uri()}", f"model.sha256='{digest}'"), tmp_path / "cache")
    assert (tmp_path / "cache/weights/backbone.pth").exists()
    with pytest.raises(FastudaError, match="SHA-256"):
        build_model(recipe(f"model.weights={backbone.as_uri()}", f"model.sha256='{'0' * 64}'"), tmp_path / "other")
    assert not (tmp_path / "other/weights/backbone.pth").exists()


def test_imagenet_without_a_network_says_which_file_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    with pytest.raises(FastudaError) as caught:
        build_model(load_recipe("gta2cs"), tmp_path)
    for part in ("resnet101-63fe2227.pth", str(tmp_path / "weights"), "--set model.weights=random"):
        assert part in str(caught.value)


def test_imagenet_exists_for_width_1_only(tmp_path: Path) -> None:
    with pytest.raises(FastudaError, match=r"published for width 1 only, and model\.width is 0\.125"):
        build_model(recipe(), tmp_path)


def test_a_backbone_cannot_predict(backbone: Path) -> None:
    with pytest.raises(FastudaError, match="cannot predict"):
        read_model(backbone, torch.device("cpu"))
