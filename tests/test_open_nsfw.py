"""Yahoo's Open-NSFW as a backbone: the function of its ONNX file, BatchNorm that can be trained, and dead leaves."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fastuda.errors import FastudaError
from fastuda.model.archive import read_archive
from fastuda.model.build import build_model
from fastuda.model.deeplab.dead_leaves import dead_leaves
from fastuda.model.deeplab.family import FAMILY, OPEN_NSFW
from fastuda.model.deeplab.network import DeepLabV2
from fastuda.model.deeplab.open_nsfw import _layers
from fastuda.model.packaged import find_packaged
from fastuda.model.weights import read_weights
from fastuda.recipe.file import load_recipe

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "weights" / "resnet50-half-caffe.safetensors"
SETTINGS = ("model.depth=50", "model.width=0.5")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> DeepLabV2:
    recipe = load_recipe("gta2cs", [*SETTINGS, "model.weights=open-nsfw"])
    before = torch.get_rng_state()
    model, resolved = build_model(recipe, tmp_path_factory.mktemp("cache"))
    assert not torch.equal(before, torch.get_rng_state()), "the heads are drawn"
    assert (resolved.model.input, resolved.model.stride_on, resolved.model.pool_padding) == ("bgr-caffe", "1x1", 0)
    assert isinstance(model, DeepLabV2)
    return model.eval()


def pictures() -> Tensor:
    return dead_leaves(2, 96, seed=5).flip(1) - torch.tensor([104.0, 117.0, 123.0])[:, None, None]


def test_its_function_is_that_of_the_onnx_file(network: DeepLabV2) -> None:
    """Convolutions and constants taken out of the file by hand, without any BatchNorm."""
    import onnx
    from onnx import numpy_helper
    from torch.nn import functional as F

    graph = onnx.load(str(find_packaged(OPEN_NSFW, "open-nsfw"))).graph
    kept = {one.name: torch.from_numpy(numpy_helper.to_array(one).copy()) for one in graph.initializer}
    first = next(i for i, node in enumerate(graph.node) if node.op_type == "Conv")
    constants = [
        (node.op_type, kept[name])
        for node in graph.node[first : first + 12]
        for name in node.input
        if name in kept and node.op_type in ("Conv", "Add", "Sub", "Mul")
    ]
    assert [kind for kind, _ in constants] == ["Conv", "Add", "Sub", "Mul", "Add"]
    x = F.conv2d(pictures(), constants[0][1], stride=2, padding=3)
    for kind, value in constants[1:]:
        value = value.reshape(-1, 1, 1)
        x = x * value if kind == "Mul" else x - value if kind == "Sub" else x + value
    with torch.no_grad():
        ours = network.backbone.bn1(network.backbone.conv1(pictures()))
    torch.testing.assert_close(ours, x, rtol=1e-5, atol=1e-5)


def test_its_probabilities_are_those_of_onnx_runtime() -> None:
    """The whole classifier, at the stride that it was trained with, on pictures of its own size."""
    runtime = pytest.importorskip("onnxruntime")
    import onnx
    from onnx import numpy_helper

    from fastuda.model.deeplab.resnet import Bottleneck

    path = find_packaged(OPEN_NSFW, "open-nsfw")
    graph = onnx.load(str(path)).graph
    kept = {one.name: torch.from_numpy(numpy_helper.to_array(one).copy()) for one in graph.initializer}
    product = next(node for node in graph.node if node.op_type == "MatMul")
    biases = [kept[name] for node in graph.node[-6:] if node.op_type == "Add" for name in node.input if name in kept]
    imported = read_weights(path)
    model = DeepLabV2(19, depth=50, width=0.5, pool_padding=0)
    model.load_state_dict(imported.state, strict=False)
    model.eval()
    for stage in (model.backbone.layer3, model.backbone.layer4):
        for i, block in enumerate(stage):
            assert isinstance(block, Bottleneck)
            block.conv2.dilation = block.conv2.padding = (1, 1)
            if i == 0:
                assert block.downsample is not None
                block.conv1.stride = block.downsample[0].stride = (2, 2)  # type: ignore[assignment]
    images = dead_leaves(2, 224, seed=3).flip(1) - torch.tensor([104.0, 117.0, 123.0])[:, None, None]
    with torch.no_grad():
        features = model.backbone(images)[1].mean((2, 3))
        ours = (features @ kept[product.input[1]] + biases[0]).softmax(1)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (theirs,) = session.run(None, {"input_0": images.permute(0, 2, 3, 1).contiguous().numpy()})
    torch.testing.assert_close(ours, torch.from_numpy(theirs), rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not SHARED.exists(), reason="needs the weights that were converted by others")
def test_it_is_equal_in_function_to_the_conversion_of_others(network: DeepLabV2) -> None:
    theirs = DeepLabV2(19, depth=50, width=0.5, pool_padding=0).eval()
    state = {f"backbone.{key}": value for key, value in load_file(SHARED).items()}
    theirs.load_state_dict(state, strict=False)
    with torch.no_grad():
        for ours, expected in zip(network.backbone(pictures()), theirs.backbone(pictures()), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    ratios = []
    for key, value in state.items():
        if key.endswith("running_var"):
            ratios.append((network.state_dict()[key] / value).median())
    assert 0.7 < torch.stack(ratios).median() < 1.4
    assert torch.stack(ratios).min() > 0.3
    assert torch.stack(ratios).max() < 2


def test_it_is_the_same_every_time_and_draws_from_nobodys_generator() -> None:
    path = find_packaged(OPEN_NSFW, "open-nsfw")
    before = torch.get_rng_state()
    first, second = read_weights(path), read_weights(path)
    assert torch.equal(before, torch.get_rng_state())
    assert (first.origin, first.input, first.num_classes) == ("open-nsfw", "bgr-caffe", None)
    assert all(torch.equal(value, second.state[key]) for key, value in first.state.items())


def test_the_file_itself_can_be_named(tmp_path: Path, network: DeepLabV2) -> None:
    path = find_packaged(OPEN_NSFW, "open-nsfw")
    model, _ = build_model(load_recipe("gta2cs", [*SETTINGS, f"model.weights={path}"]), tmp_path)
    state = network.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_another_size_of_network_is_told_which_it_is(tmp_path: Path) -> None:
    with pytest.raises(
        FastudaError,
        match=r'"open-nsfw" is a ResNet-50 of width 0\.5, and the recipe wants ResNet-101 at width 1: '
        r"--set model\.depth=50 --set model\.width=0\.5",
    ):
        build_model(load_recipe("gta2cs", ["model.weights=open-nsfw"]), tmp_path)


def test_files_that_are_no_such_network_are_refused(tmp_path: Path) -> None:
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    path = tmp_path / "small.onnx"
    path.write_bytes(b"\x08\x07nonsense")
    with pytest.raises(FastudaError, match=r"small\.onnx: no readable ONNX file"):
        read_weights(path)
    weight = numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "xy"]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [weight])
    onnx.save(helper.make_model(graph), str(path))
    with pytest.raises(FastudaError, match=r"Open-NSFW classifier alone, with 53 convolutions, and this one has 1"):
        read_weights(path)
    onnx.save(helper.make_model(graph), str(path), save_as_external_data=True, location="beside", size_threshold=0)
    assert (tmp_path / "beside").exists()
    with pytest.raises(FastudaError, match=r"small\.onnx: its weights lie in another file, which is not read; save it"):
        read_weights(path)
    path.write_bytes(b"\x08\x07")
    with pytest.raises(FastudaError, match=r"small\.onnx: an ONNX file without any convolution"):
        read_weights(path)


def test_another_onnx_file_is_not_taken_for_this_network_by_other_families() -> None:
    from fastuda.model.onnx_file import PARTS

    content = {f"convolutions.0.{part}": torch.ones(4) for part in PARTS}
    assert not FAMILY.recognises(content)
    assert FAMILY.recognises(read_archive(find_packaged(OPEN_NSFW, "open-nsfw"))[0].keys())


def test_keys_that_only_begin_like_an_onnx_files_are_no_such_file(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    weights = {f"convolutions.{number}.weight": torch.ones(shape) for number, (_, shape) in enumerate(_layers())}
    torch.save(weights, path)
    with pytest.raises(FastudaError, match=r"other\.pth: it holds a foreign network"):
        read_weights(path)
    parts = {key.replace("weight", part): torch.ones(3) for key in weights for part in ("shift", "scale", "offset")}
    torch.save(weights | parts, path)
    with pytest.raises(FastudaError, match=r"this one's convolutions\.0\.shift is 3, not 64; convolutions\.0\.scale"):
        read_weights(path)


def test_a_missing_reader_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x07 and more")
    with pytest.raises(FastudaError, match=r"model\.onnx: to read an ONNX file takes the package onnx: pip install"):
        read_weights(path)


def test_dead_leaves_have_the_spectrum_and_the_colours_of_photographs() -> None:
    images = dead_leaves(6, 128, seed=1)
    assert images.shape == (6, 3, 128, 128)
    assert 0 <= images.min() < images.max() <= 255
    assert torch.equal(images, dead_leaves(6, 128, seed=1))
    assert not torch.equal(images, dead_leaves(6, 128, seed=2))
    red, green, blue = images.flatten(2).transpose(0, 1).flatten(1)
    assert torch.corrcoef(torch.stack([red, green, blue])).min() > 0.8
    grey = images.mean(1) - images.mean((1, 2, 3))[:, None, None]
    power = torch.fft.fft2(grey).abs().square().mean(0)
    frequencies = torch.fft.fftfreq(128)
    radius = (frequencies[:, None].square() + frequencies.square()).sqrt()
    rings = [(0.02, 0.04), (0.04, 0.08), (0.08, 0.16)]
    means = [power[(radius >= low) & (radius < high)].mean().log2() for low, high in rings]
    slopes = [float(before - after) for before, after in pairwise(means)]
    assert all(1 < slope < 3.5 for slope in slopes), "power falls by about 2² an octave"
