"""Weights files: every kind is matched key by key, hostile and damaged files are refused, downloads are checked."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fastuda.errors import FastudaError
from fastuda.model.deeplab.loading import load_into
from fastuda.model.deeplab.network import DeepLabV2
from fastuda.model.deeplab.resnet import Depth
from fastuda.model.deeplab.table import Table
from fastuda.model.segmenter import described
from fastuda.model.weights import read_weights, save_weights

HALF_WIDTH = Path(__file__).resolve().parents[2] / "shared/data/weights/resnet50-half-caffe.safetensors"
TINY = 0.0625

State = dict[str, Tensor]


def _model(depth: Depth = 50, num_classes: int = 3, **settings: Any) -> DeepLabV2:
    return DeepLabV2(num_classes, depth=depth, **{"width": TINY, "aspp": (6, 12), **settings})


def _randomised(model: DeepLabV2, seed: int = 1) -> DeepLabV2:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
    return model


def _torchvision(depth: Depth = 50, *, batches_tracked: bool = True) -> State:
    """Random values under torchvision's keys, with the ImageNet classifier."""
    backbone = _randomised(_model(depth)).backbone
    state = {k: v for k, v in backbone.state_dict().items() if batches_tracked or "num_batches" not in k}
    return state | {"fc.weight": torch.rand(10, backbone.out_channels[1]), "fc.bias": torch.rand(10)}


def _released(num_classes: int = 3, *, two_heads: bool = True) -> State:
    """Random values under the lineage's keys: four branches a head, of which two ever acted."""
    state = {k: v for k, v in _torchvision(batches_tracked=False).items() if not k.startswith("fc.")}
    channels = {"layer5": 64, "layer6": 128} if two_heads else {"layer5": 128}
    for layer, in_channels in channels.items():
        for branch in range(4):
            state[f"{layer}.conv2d_list.{branch}.weight"] = torch.rand(num_classes, in_channels, 3, 3)
            state[f"{layer}.conv2d_list.{branch}.bias"] = torch.rand(num_classes)
    return state


def _saved(tmp_path: Path, content: object, name: str = "weights.pth") -> Path:
    path = tmp_path / name
    torch.save(content, path)
    return path


def _loaded(path: Path, model: DeepLabV2) -> State:
    """Load with the check that every tensor of the model changed, and give the backbone and heads back."""
    before = {k: v.clone() for k, v in model.state_dict().items()}
    imported = read_weights(path)
    report = load_into(model, imported, path=path)
    after = model.state_dict()
    unchanged = {k for k in after if torch.equal(before[k], after[k]) and "num_batches" not in k}
    assert unchanged == {k for k in report.fresh if "num_batches" not in k}
    return after


@pytest.mark.parametrize("depth", [18, 50, 101])
@pytest.mark.parametrize("batches_tracked", [False, True])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torchvision_state_dict(tmp_path: Path, depth: Depth, batches_tracked: bool, suffix: str) -> None:
    state = _torchvision(depth, batches_tracked=batches_tracked)
    path = tmp_path / f"resnet{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    imported = read_weights(path)
    assert (imported.origin, imported.input, imported.stride_on) == ("torchvision", "rgb-imagenet", "3x3")
    assert (imported.depth, imported.width, imported.pool_padding) == (depth, TINY, 1)
    assert (imported.num_classes, imported.aspp) == (None, None)
    assert set(imported.dropped) == {"fc.weight", "fc.bias"}
    after = _loaded(path, _model(depth, stride_on="3x3"))
    for key, value in state.items():
        if not key.startswith("fc."):
            assert torch.equal(after[f"backbone.{key}"], value)


def test_a_pretrained_backbone_under_another_stride_is_loaded_and_told(tmp_path: Path) -> None:
    path = _saved(tmp_path, _torchvision())
    report = load_into(_model(stride_on="1x1"), read_weights(path), path=path)
    assert report.differences == ("model.stride_on is 1x1, the file's network has 3x3",)
    assert load_into(_model(stride_on="3x3"), read_weights(path), path=path).differences == ()
    assert report.matched == len(_torchvision()) - 2
    assert len(report.fresh) == 8


def test_caffe_convention_has_to_be_said_and_is_noticed_in_the_stem(tmp_path: Path) -> None:
    state = _torchvision()
    path = _saved(tmp_path, state)
    imported = read_weights(path, Table(convention="caffe"))
    assert (imported.input, imported.stride_on, imported.pool_padding) == ("bgr-caffe", "1x1", 0)

    state["bn1.running_var"] = 4000 * state["conv1.weight"].square().sum((1, 2, 3))
    path = _saved(tmp_path, state)
    with pytest.raises(FastudaError, match=r"weights\.pth: .* --set model\.convention=caffe"):
        read_weights(path)
    assert read_weights(path, Table(convention="caffe")).input == "bgr-caffe"
    assert read_weights(path, Table(convention="torchvision")).input == "rgb-imagenet"


@pytest.mark.skipif(not HALF_WIDTH.exists(), reason="the shared half-width weights are absent")
def test_half_width_caffe_weights_match_without_a_key_left_over() -> None:
    with pytest.raises(FastudaError, match=r"model\.convention=caffe"):
        read_weights(HALF_WIDTH)
    imported = read_weights(HALF_WIDTH, Table(convention="caffe"))
    assert (imported.depth, imported.width) == (50, 0.5)
    model = DeepLabV2(11, depth=50, width=0.5, stride_on=imported.stride_on, pool_padding=imported.pool_padding)
    report = load_into(model, imported, path=HALF_WIDTH)
    assert report.matched == 265
    assert (report.dropped, report.differences) == ({}, ())
    assert all(torch.equal(model.state_dict()[key], value) for key, value in imported.state.items())


def test_deeplab_initialisation(tmp_path: Path) -> None:
    state = {f"Scale.{k}": v for k, v in _torchvision(batches_tracked=False).items() if not k.startswith("fc.")}
    classifier = {f"Scale.layer5.conv2d_list.{i}.weight": torch.rand(21, 128, 3, 3) for i in range(4)}
    path = _saved(tmp_path, state | classifier)
    imported = read_weights(path)
    assert (imported.origin, imported.input, imported.stride_on) == ("deeplab-init", "bgr-caffe", "1x1")
    assert (imported.pool_padding, imported.num_classes, imported.aspp) == (1, None, None)
    assert len(imported.dropped) == 4
    after = _loaded(path, _model(aspp=(6, 12, 18, 24)))
    assert torch.equal(after["backbone.layer3.2.conv2.weight"], state["Scale.layer3.2.conv2.weight"])
    with pytest.raises(FastudaError, match="deeplab-init"):
        read_weights(path, Table(convention="torchvision"))


WRAPPERS: dict[str, Callable[[State], object]] = {
    "bare": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"state": {}}},
    "model": lambda state: {"model": state, "iteration": 7, "config": {"name": "x"}},
    "shadow": lambda state: {"shadow": state, "state_dict": {k: v + 1 for k, v in state.items()}, "iter": 1},
    "part of it in shadow": lambda state: {
        "state_dict": {k: v if "running" in k else v + 1 for k, v in state.items()},
        "shadow": {k: v for k, v in state.items() if "running" not in k},
    },
    "numpy score": lambda state: {"state_dict": state, "best_MIou": np.float64(0.588)},
}


@pytest.mark.parametrize("wrapper", list(WRAPPERS))
@pytest.mark.parametrize("prefix", ["", "module."])
def test_released_checkpoint(tmp_path: Path, wrapper: str, prefix: str) -> None:
    state = _released()
    path = _saved(tmp_path, WRAPPERS[wrapper]({prefix + k: v for k, v in state.items()}))
    imported = read_weights(path)
    assert (imported.origin, imported.input, imported.stride_on) == ("released", "bgr-caffe", "1x1")
    assert (imported.pool_padding, imported.num_classes, imported.aspp) == (1, 3, (6, 12))
    never_acted = {k for k in imported.dropped if "conv2d_list" in k}
    assert never_acted == {
        f"{x}.conv2d_list.{i}.{p}" for x in ("layer5", "layer6") for i in (2, 3) for p in ("weight", "bias")
    }
    after = _loaded(path, _model())
    for ours, theirs in {
        "backbone.layer4.2.bn3.running_var": "layer4.2.bn3.running_var",
        "head.branches.0.weight": "layer6.conv2d_list.0.weight",
        "head.branches.1.bias": "layer6.conv2d_list.1.bias",
        "auxiliary_head.branches.1.weight": "layer5.conv2d_list.1.weight",
    }.items():
        assert torch.equal(after[ours], state[theirs])


def test_released_checkpoint_with_one_head_and_the_lineages_extras(tmp_path: Path) -> None:
    state = _released(two_heads=False)
    extras = {"c1.weight": torch.rand(4, 128, 1, 1), "proto_classifier.weight": torch.rand(2), "para": torch.rand(1)}
    path = _saved(tmp_path, state | extras)
    assert set(extras) < set(read_weights(path).dropped)
    after = _loaded(path, _model(auxiliary=False))
    assert torch.equal(after["head.branches.0.weight"], state["layer5.conv2d_list.0.weight"])
    with pytest.raises(FastudaError, match=r"model\.auxiliary=false.*auxiliary_head\.branches\.0\.weight is missing"):
        load_into(_model(), read_weights(path), path=path)


def test_numpy_1_scores_are_plain_data(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(_released() | {"score": np.float64(1.5)}, buffer, _use_new_zipfile_serialization=False)
    path = tmp_path / "old.pth"
    path.write_bytes(buffer.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    assert b"numpy.core" in path.read_bytes()
    assert read_weights(path).dropped["score"] == "not a tensor"


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_own_file_comes_back_the_same(tmp_path: Path, memory_format: torch.memory_format) -> None:
    model = _randomised(_model(18, aspp=(3, 6), stride_on="3x3")).to(memory_format=memory_format)  # type: ignore[call-overload]
    path = tmp_path / "own.safetensors"
    model.input = "bgr-caffe"
    save_weights(path, model.state_dict(), {"note": "x"} | described(model))
    imported = read_weights(path)
    assert (imported.origin, imported.input, imported.stride_on) == ("fastuda", "bgr-caffe", "3x3")
    assert (imported.aspp, imported.num_classes, imported.depth) == ((3, 6), 3, 18)
    assert imported.metadata["note"] == "x"
    other = _model(18, aspp=(3, 6), stride_on="3x3")
    report = load_into(other, imported, path=path)
    assert report.matched == len(model.state_dict())
    assert all(torch.equal(other.state_dict()[k], v) for k, v in model.state_dict().items())


def test_own_file_has_to_say_which_network_it_is(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    for metadata in ({}, {"model": "{"}, {"model": json.dumps({"input": "bgr-caffe"})}):
        save_weights(path, _model(18).state_dict(), metadata)
        with pytest.raises(FastudaError, match=r"own\.safetensors: .*metadata `model`"):
            read_weights(path)


def _fails(path: Path, model: DeepLabV2, *words: str) -> None:
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(FastudaError) as caught:
        load_into(model, read_weights(path), path=path)
    assert all(word in str(caught.value) for word in (str(path), *words)), str(caught.value)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_another_network_than_the_recipes_is_named(tmp_path: Path) -> None:
    path = _saved(tmp_path, _released())
    _fails(path, _model(101), "holds ResNet-50", "wants ResNet-101", "--set model.depth=50")
    _fails(path, _model(width=0.125), "width 0.0625", "width 0.125", "--set model.width=0.0625")
    _fails(path, _model(num_classes=19), "knows 3 classes, the recipe 19")
    _fails(path, _model(aspp=(6, 12, 18, 24)), "--set model.aspp=[6,12]")
    _fails(path, _model(stride_on="3x3"), "model.stride_on is 3x3, the file's network has 1x1")
    _fails(path, _model(pool_padding=0), "model.pool_padding is 0")
    _fails(path, _model(auxiliary=False), "auxiliary_head.branches.0.bias has no place", "model.auxiliary=true")


def test_unmatched_keys_are_named(tmp_path: Path) -> None:
    state = _torchvision()
    del state["layer2.1.bn2.bias"]
    state["layer3.0.conv2.weight"] = torch.rand(1, 2)
    state["surprise.weight"] = torch.rand(1)
    path = _saved(tmp_path, state)
    _fails(
        path,
        _model(),
        "3 keys",
        "backbone.layer2.1.bn2.bias is missing",
        "backbone.layer3.0.conv2.weight is 1×2, not 16×16×3×3",
        "surprise.weight has no place",
    )
    path = _saved(tmp_path, {k: v for k, v in state.items() if "running" not in k})
    with pytest.raises(FastudaError, match=r"(?s)109 keys.*and 99 more"):
        load_into(_model(), read_weights(path), path=path)


@pytest.mark.parametrize(
    ("drop", "message"),
    [
        ("layer4.2.", "3, 4, 6, 2 bottlenecks"),
        ("layer1.0.conv1", "3, 4, 6, 3 bottlenecks"),
        ("conv3", "3, 4, 6, 3 basic blocks"),
        ("conv1.weight", "are neither torchvision's"),
    ],
)
def test_unknown_networks_are_refused(tmp_path: Path, drop: str, message: str) -> None:
    path = _saved(tmp_path, {k: v for k, v in _torchvision().items() if drop not in k})
    with pytest.raises(FastudaError, match=message):
        read_weights(path)


class Bomb:
    """Unpickling it would write the file named by `target`."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle 2", "pickle 4"])
def test_code_in_a_file_is_not_run(tmp_path: Path, form: str) -> None:
    trace = tmp_path / "trace"
    content = {"state_dict": {"conv1.weight": torch.zeros(1)}, "extra": Bomb(trace)}
    path = tmp_path / "bomb.pth"
    if form.startswith("pickle"):
        path.write_bytes(pickle.dumps(Bomb(trace), protocol=int(form[-1])))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(FastudaError, match=r"bomb\.pth: it holds code.*none of it was run") as caught:
        read_weights(path)
    assert "weights_only" not in str(caught.value)
    assert not trace.exists()
    # The same bytes do run when unpickled, so the test can fail.
    if form.startswith("pickle"):
        pickle.loads(path.read_bytes())
        assert trace.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("damage", ["cut", "head", "text", "empty"])
def test_damaged_files_are_refused(tmp_path: Path, suffix: str, damage: str) -> None:
    path = tmp_path / f"weights{suffix}"
    state = _torchvision(18)
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "head": whole[:9], "text": b"hello\n" * 9, "empty": b""}[damage])
    with pytest.raises(FastudaError, match=r"weights\.\w+: no readable weights"):
        read_weights(path)


def test_other_content_and_missing_files_are_refused(tmp_path: Path) -> None:
    for content, message in (([1, 2], "holds a list"), ({"epoch": 3}, "no tensors at all")):
        with pytest.raises(FastudaError, match=message):
            read_weights(_saved(tmp_path, content))
    with pytest.raises(FastudaError, match=r"nowhere\.pth: cannot be read: No such file"):
        read_weights(tmp_path / "nowhere.pth")


def test_a_failed_save_keeps_the_old_file_and_leaves_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "own.safetensors"
    path.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FastudaError, match=r"own\.safetensors: no space left on the disk"):
        save_weights(path, {"a": torch.zeros(3)}, {})
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["own.safetensors"]
    with pytest.raises(FastudaError, match="cannot be written"):
        save_weights(path / "below.safetensors", {"a": torch.zeros(3)}, {})
