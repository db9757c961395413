"""Checkpoints of other trainers: what lies around a network is looked through, a foreign network is called so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastuda.errors import FastudaError
from fastuda.model.deeplab.loading import load_into
from fastuda.model.deeplab.network import DeepLabV2
from fastuda.model.segmenter import described
from fastuda.model.weights import read_weights, save_weights

State = dict[str, Tensor]


def released() -> State:
    """A state dict as EHTDI's code saves it, of a small network."""
    model = DeepLabV2(3, depth=18, width=0.0625)
    names = {
        "backbone.": "",
        "auxiliary_head.branches.": "layer5.conv2d_list.",
        "head.branches.": "layer6.conv2d_list.",
    }
    state = {}
    for key, value in model.state_dict().items():
        ours = next(prefix for prefix in names if key.startswith(prefix))
        state[names[ours] + key.removeprefix(ours)] = torch.rand_like(value.float()).to(value.dtype)
    return state


def prefixed(state: State, prefix: str) -> State:
    return {prefix + key: value for key, value in state.items()}


WRAPPERS: dict[str, Callable[[State, State], object]] = {
    "model_state_dict": lambda own, _: {"model_state_dict": own, "epoch": 3},
    "model_state_dict, data parallel": lambda own, _: {"model_state_dict": prefixed(own, "module."), "epoch": 3},
    "net": lambda own, _: {"net": own, "optimizer": {"state": {}, "param_groups": []}},
    "network": lambda own, _: {"network": own},
    "student alone": lambda own, _: {"student": own},
    "two wrappers": lambda own, _: {"state_dict": {"model": own}, "epoch": 1},
    "lightning": lambda own, _: {"state_dict": prefixed(own, "model."), "global_step": 5, "hyper_parameters": {}},
    "compiled": lambda own, _: prefixed(own, "_orig_mod."),
    "compiled, data parallel": lambda own, _: {"model": prefixed(own, "module._orig_mod.")},
    "average beside": lambda own, other: {"model": other, "ema": own},
    "average of timm": lambda own, other: {"state_dict": other, "state_dict_ema": own},
    "teacher beside": lambda own, other: {"student": other, "teacher": own},
    "teacher by prefix": lambda own, other: {"state_dict": prefixed(other, "student.") | prefixed(own, "teacher.")},
    "DeepSpeed": lambda own, _: {"module": own, "ds_version": "1"},
    "averaged module beside": lambda own, other: {"model": other, "ema": {"module": own, "updates": 3}},
    "torch's AveragedModel": lambda own, _: prefixed(own, "module.") | {"n_averaged": torch.tensor(3)},
    "lightning with a loss's buffer": lambda own, _: {
        "state_dict": prefixed(own, "model.") | {"criterion.weight": torch.ones(3)}
    },
    "a configuration called model": lambda own, _: {"model": {"depth": 18}, "net": own},
    "an average in another form": lambda own, _: {"model": own, "ema": {"shadow_params": [torch.ones(1)]}},
    "average by prefix": lambda own, other: prefixed(other, "model.") | prefixed(own, "ema_model."),
}


@pytest.mark.parametrize("how", list(WRAPPERS))
def test_the_usual_wrappers_are_looked_through(tmp_path: Path, how: str) -> None:
    own, other = released(), released()
    path = tmp_path / "w.pth"
    torch.save(WRAPPERS[how](own, other), path)
    imported = read_weights(path)
    assert imported.origin == "released"
    model = DeepLabV2(3, depth=18, width=0.0625, aspp=(6, 12))
    load_into(model, imported, path=path)
    assert torch.equal(model.state_dict()["backbone.layer3.0.conv1.weight"], own["layer3.0.conv1.weight"])
    if "beside" in how or "prefix" in how or "timm" in how or "another form" in how:
        assert any("averaged weights" in reason for reason in imported.dropped.values())


def test_an_own_file_inside_a_wrapper_still_lacks_its_header(tmp_path: Path) -> None:
    model = DeepLabV2(3, depth=18, width=0.0625)
    path = tmp_path / "w.pth"
    torch.save({"model_state_dict": model.state_dict()}, path)
    with pytest.raises(FastudaError, match="its keys are fastuda's, but its header does not say"):
        read_weights(path)
    model.input = "bgr-caffe"
    save_weights(tmp_path / "own.safetensors", prefixed(model.state_dict(), "module."), described(model))
    assert read_weights(tmp_path / "own.safetensors").origin == "fastuda"


def test_a_runs_saved_state_is_no_model(tmp_path: Path) -> None:
    model = DeepLabV2(3, depth=18, width=0.0625).state_dict()
    student = {key: value.clone() for key, value in model.items()}
    save_weights(tmp_path / "last.state.safetensors", prefixed(model, "average.") | prefixed(student, "student."), {})
    with pytest.raises(FastudaError, match=r"saved state of a run.*adapted-last\.safetensors"):
        read_weights(tmp_path / "last.state.safetensors")


def zeros(*keys: str) -> State:
    return {key: torch.zeros(1) for key in keys}


FOREIGN: dict[str, tuple[object, str]] = {
    "DAFormer on a ResNet": (
        {
            "meta": {"epoch": 1},
            "state_dict": zeros(
                "model.backbone.conv1.weight", "model.decode_head.fuse_layer.bottleneck.conv.weight",
                "ema_model.backbone.conv1.weight", "ema_model.decode_head.fuse_layer.bottleneck.conv.weight",
                "imnet_model.backbone.conv1.weight",
            ),
        },
        "a checkpoint of DAFormer, HRDA or MIC",
    ),
    "HRDA's network alone, on a ResNet": (
        {"state_dict": zeros("backbone.conv1.weight", "decode_head.scale_attention.linear_c4.weight")},
        "a checkpoint of the DAFormer, HRDA and MIC family",
    ),
    "mmsegmentation, ResNet": (
        {
            "meta": {},
            "state_dict": zeros(
                "backbone.conv1.weight", "backbone.layer1.0.conv1.weight", "backbone.layer2.0.conv1.weight",
                "backbone.layer4.0.conv1.weight", "decode_head.conv_seg.weight", "auxiliary_head.conv_seg.weight",
            ),
        },
        "an mmsegmentation checkpoint",
    ),
    "a part of a SegFormer": (
        zeros("segformer.encoder.block.0.0.mlp.dense1.weight", "decode_head.classifier.weight"),
        "(a part of a SegFormer of the transformers library|an mmsegmentation checkpoint)",
    ),
    "DINOv2": (zeros("cls_token", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"), "a transformer"),
    "torchvision's DeepLabV3": (
        zeros("backbone.conv1.weight", "backbone.layer1.0.conv1.weight", "classifier.4.weight"), "DeepLabV3",
    ),
    "a VGG whose stem is called conv1": (zeros("conv1.weight", "conv2.weight", "fc6.weight"), "a foreign network"),
    "one key": (zeros("conv1.weight"), "a foreign network"),
    "a U-Net that begins as a ResNet": (
        zeros(
            "conv1.weight", "layer1.0.conv1.weight", "layer2.0.conv1.weight", "layer4.0.conv1.weight",
            *(f"up{i}.{j}.weight" for i in range(4) for j in range(4)),
        ),
        "a foreign network",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", list(FOREIGN))
def test_a_foreign_network_is_called_foreign_with_the_keys_found_and_expected(tmp_path: Path, what: str) -> None:
    content, words = FOREIGN[what]
    path = tmp_path / "w.pth"
    torch.save(content, path)
    with pytest.raises(FastudaError, match=words) as caught:
        read_weights(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert "foreign network" in said
    assert "layer5.conv2d_list.0.weight" in said
    assert "head.branches.0.weight" in said
    state = content["state_dict"] if isinstance(content, dict) and "state_dict" in content else content
    assert isinstance(state, dict)
    assert any(key.split(".", 1)[-1] in said for key in state)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    state = released()
    state["layer3.0.conv1.weight"][0] = float("nan")
    torch.save(state, tmp_path / "w.pth")
    model = DeepLabV2(3, depth=18, width=0.0625, aspp=(6, 12))
    with pytest.raises(FastudaError, match=r"1 tensors hold NaN or infinity \(backbone\.layer3\.0\.conv1\.weight"):
        load_into(model, read_weights(tmp_path / "w.pth"), path=tmp_path / "w.pth")
