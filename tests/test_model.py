"""The network: shapes, conventions, and its function against a second forward pass written from the definition."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fastuda.model.deeplab.network import ASPP, DeepLabV2
from fastuda.model.deeplab.resnet import Depth, ResNet, StrideOn


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Convolutions this small spend their time waiting for the other threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


@pytest.mark.parametrize("depth", [18, 50, 101])
@pytest.mark.parametrize(("height", "width"), [(33, 47), (64, 65), (71, 39)])
def test_logits_have_stride_8_at_any_size(depth: Depth, height: int, width: int) -> None:
    model = DeepLabV2(5, depth=depth, width=0.0625).eval()
    outputs = model(torch.zeros(2, 3, height, width))
    main, auxiliary = outputs.logits, outputs.auxiliary
    assert outputs.features is None
    size = tuple(math.floor(_pooled(_halved(x)) / 2 + 0.5) for x in (height, width))
    assert main.shape == (2, 5, *size)
    assert auxiliary is not None
    assert auxiliary.shape == main.shape


def _halved(pixels: int) -> int:
    return math.ceil(pixels / 2)


def _pooled(pixels: int) -> int:
    """A 3/2 max-pool with padding 1 in ceil_mode, whose last window must begin on a pixel or left of it."""
    return pixels // 2 + 1


@pytest.mark.parametrize(
    ("pixels", "pool_padding", "positions"),
    [((512, 512), 1, (65, 65)), ((720, 1280), 1, (91, 161)), ((512, 512), 0, (64, 64)), ((721, 1281), 0, (90, 160))],
)
@pytest.mark.parametrize("stride_on", ["1x1", "3x3"])
def test_full_size_shapes_without_computing(
    pixels: tuple[int, int], pool_padding: int, positions: tuple[int, int], stride_on: StrideOn
) -> None:
    with FakeTensorMode():
        model = DeepLabV2(19, depth=101, stride_on=stride_on, pool_padding=pool_padding)
        logits = model(torch.zeros(2, 3, *pixels))
    assert logits.logits.shape == (2, 19, *positions)
    assert logits.auxiliary is not None
    assert logits.auxiliary.shape == (2, 19, *positions)


def test_full_width_channels_and_parameter_count() -> None:
    with FakeTensorMode():
        assert ResNet(18).out_channels == (256, 512)
        assert ResNet(50).out_channels == (1024, 2048)
        # torchvision's resnet101 has 44,549,160 parameters, 2,049,000 of them in fc.
        assert sum(p.numel() for p in ResNet(101).parameters()) == 42_500_160
        assert sum(p.numel() for p in ResNet(50).parameters()) == 25_557_032 - 2_049_000
        assert sum(p.numel() for p in ResNet(18).parameters()) == 11_689_512 - 513_000
        half = ResNet(50, width=0.5)
    assert half.out_channels == (512, 1024)
    assert half.conv1.out_channels == 64
    # README of the half-width weights: 5.9 M.
    assert round(sum(p.numel() for p in half.parameters()) / 1e6, 1) == 5.9


@pytest.mark.parametrize("depth", [18, 50, 101])
@pytest.mark.parametrize("stride_on", ["1x1", "3x3"])
def test_strides_and_dilations(depth: Depth, stride_on: StrideOn) -> None:
    with FakeTensorMode():
        backbone = ResNet(depth, stride_on=stride_on)
    for layer, (stride, dilation) in enumerate([(1, 1), (2, 1), (1, 2), (1, 4)], start=1):
        for index, block in enumerate(getattr(backbone, f"layer{layer}")):
            first = stride if index == 0 else 1
            strides = (first, 1) if depth == 18 or stride_on == "1x1" else (1, first)
            dilated = [block.conv1, block.conv2] if depth == 18 else [block.conv2]
            assert (block.conv1.stride[0], block.conv2.stride[0]) == strides
            assert all(conv.dilation == conv.padding == (dilation, dilation) for conv in dilated)
            if block.downsample is not None:
                assert block.downsample[0].stride == (first, first)


def _max_pool(x: Tensor, padding: int) -> Tensor:
    """3×3/2 max-pool in Caffe's rounding: output size up, windows beyond the right padding dropped."""
    sizes = []
    for length in x.shape[2:]:
        size = math.ceil((length + 2 * padding - 3) / 2) + 1
        sizes.append(size - 1 if (size - 1) * 2 >= length + padding else size)
    padded = F.pad(x, (padding, 3, padding, 3), value=-math.inf)
    windows = padded.unfold(2, 3, 2).unfold(3, 3, 2).amax((-1, -2))
    return windows[:, :, : sizes[0], : sizes[1]]


def _reference(
    state: dict[str, Tensor], x: Tensor, depth: int, stride_on: str, pool_padding: int, training: bool
) -> tuple[Tensor, Tensor]:
    """Layer3 and layer4 features from a state dict alone; BatchNorm by its formula."""

    def normalised(x: Tensor, name: str) -> Tensor:
        if training:
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        else:
            mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        scale = state[f"{name}.weight"] / (variance + 1e-5).sqrt()
        return x * scale[:, None, None] + (state[f"{name}.bias"] - mean * scale)[:, None, None]

    def conv(x: Tensor, name: str, stride: int = 1, dilation: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        padding = dilation * (weight.shape[-1] // 2)
        return F.conv2d(F.pad(x, (padding,) * 4), weight, None, stride, 0, dilation)

    x = _max_pool(normalised(conv(x, "conv1", 2), "bn1").clamp_min(0), pool_padding)
    features = []
    for layer, count in enumerate(BLOCKS[depth], start=1):
        dilation = {3: 2, 4: 4}.get(layer, 1)
        for index in range(count):
            name = f"layer{layer}.{index}"
            stride = 2 if (layer, index) == (2, 0) else 1
            if depth == 18:
                y = normalised(conv(x, f"{name}.conv1", stride, dilation), f"{name}.bn1").clamp_min(0)
                y = normalised(conv(y, f"{name}.conv2", 1, dilation), f"{name}.bn2")
            else:
                early, late = (stride, 1) if stride_on == "1x1" else (1, stride)
                y = normalised(conv(x, f"{name}.conv1", early), f"{name}.bn1").clamp_min(0)
                y = normalised(conv(y, f"{name}.conv2", late, dilation), f"{name}.bn2").clamp_min(0)
                y = normalised(conv(y, f"{name}.conv3"), f"{name}.bn3")
            if f"{name}.downsample.0.weight" in state:
                x = normalised(conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
            x = (x + y).clamp_min(0)
        features.append(x)
    return features[2], features[3]


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("stride_on", ["1x1", "3x3"])
@pytest.mark.parametrize("pool_padding", [0, 1])
@pytest.mark.parametrize("training", [False, True])
def test_features_equal_the_definition(depth: Depth, stride_on: StrideOn, pool_padding: int, training: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    backbone = ResNet(depth, width=0.0625, stride_on=stride_on, pool_padding=pool_padding).double().train(training)
    for name, tensor in itertools.chain(backbone.named_parameters(), backbone.named_buffers()):
        if tensor.dim() == 1:
            offset = 0.0 if name.endswith(("bias", "mean")) else 1.0
            tensor.data.copy_(offset + 0.5 * (torch.rand(tensor.shape, generator=generator) - 0.5))
    images = torch.randn(2, 3, 53, 70, generator=generator, dtype=torch.float64)
    state = {key: value.clone() for key, value in backbone.state_dict().items()}
    with torch.no_grad():
        found = backbone(images)
        wanted = _reference(state, images, depth, stride_on, pool_padding, training)
    for features, reference in zip(found, wanted, strict=True):
        assert features.std() > 0.01
        torch.testing.assert_close(features, reference, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("stride_on", ["1x1", "3x3"])
@pytest.mark.parametrize("training", [False, True])
def test_logits_of_both_heads_equal_the_definition(depth: Depth, stride_on: StrideOn, training: bool) -> None:
    torch.manual_seed(0)
    model = DeepLabV2(5, depth=depth, width=0.0625, stride_on=stride_on, aspp=(6, 12)).double().train(training)
    images = torch.randn(2, 3, 61, 74, dtype=torch.float64)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    backbone = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    with torch.no_grad():
        found = model(images)
        early, late = _reference(backbone, images, depth, stride_on, 1, training)
    for logits, features, head in ((found.logits, late, "head"), (found.auxiliary, early, "auxiliary_head")):
        wanted = torch.zeros(())
        for branch, dilation in enumerate((6, 12)):
            weight, bias = state[f"{head}.branches.{branch}.weight"], state[f"{head}.branches.{branch}.bias"]
            wanted = wanted + F.conv2d(F.pad(features, (dilation,) * 4), weight, bias, dilation=dilation)
        assert logits.std() > 1e-3
        torch.testing.assert_close(logits, wanted, rtol=1e-9, atol=1e-9)


def test_the_two_strides_are_different_functions() -> None:
    caffe = ResNet(50, width=0.0625, stride_on="1x1").eval()
    torchvision = ResNet(50, width=0.0625, stride_on="3x3").eval()
    torchvision.load_state_dict(caffe.state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert not torch.allclose(caffe(images)[1], torchvision(images)[1], rtol=0.01)


def test_aspp_is_the_sum_of_its_branches() -> None:
    head = ASPP(8, 3, (6, 12, 18, 24)).double()
    branches = [m for m in head.modules() if isinstance(m, nn.Conv2d)]
    for branch in branches:
        assert branch.bias is not None
        nn.init.normal_(branch.bias)
    features = torch.randn(2, 8, 21, 30, dtype=torch.float64)
    wanted = torch.stack(
        [F.conv2d(features, m.weight, m.bias, 1, d, d) for m, d in zip(branches, (6, 12, 18, 24), strict=True)]
    )
    torch.testing.assert_close(head(features), wanted.sum(0))


def test_heads_start_from_a_normal_distribution_of_0_01() -> None:
    torch.manual_seed(0)
    model = DeepLabV2(19, depth=18, aspp=(6, 12))
    for head in (model.head, model.auxiliary_head):
        assert head is not None
        assert len(head.branches) == 2
        for name, parameter in head.named_parameters():
            if name.endswith("bias"):
                assert not parameter.any()
            else:
                assert abs(parameter.std().item() - 0.01) < 2e-4
                assert abs(parameter.mean().item()) < 2e-4


def test_the_auxiliary_head_can_be_left_out() -> None:
    model = DeepLabV2(4, depth=18, width=0.0625, auxiliary=False).eval()
    assert model(torch.zeros(1, 3, 32, 32)).auxiliary is None
    assert not any(key.startswith("auxiliary_head") for key in model.state_dict())


@pytest.mark.parametrize("auxiliary", [False, True])
def test_parameter_groups_cover_every_trained_parameter_once(auxiliary: bool) -> None:
    model = DeepLabV2(4, depth=50, width=0.0625, auxiliary=auxiliary)
    groups = model.parameter_groups()
    backbone = [parameter for group in groups if group.name == "backbone" for parameter in group.parameters]
    heads = [parameter for group in groups if group.name == "head" for parameter in group.parameters]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = [names[id(parameter)] for parameter in backbone + heads]
    assert len(found) == len(set(found))
    assert set(names.values()) - set(found) == {"backbone.bn1.weight", "backbone.bn1.bias"}
    assert all(names[id(parameter)].startswith("backbone.") for parameter in backbone)
    assert all("head.branches." in names[id(parameter)] for parameter in heads)
    assert len(heads) == (16 if auxiliary else 8)


def test_batch_statistics_are_used_and_gathered_in_training_even_in_the_frozen_stem() -> None:
    model = DeepLabV2(4, depth=18, width=0.0625).train()
    before = model.backbone.bn1.running_mean
    assert before is not None
    before = before.clone()
    logits = model(torch.randn(2, 3, 48, 48) + 1)
    assert logits.auxiliary is not None
    (logits.logits.sum() + logits.auxiliary.sum()).backward()
    assert model.backbone.bn1.running_mean is not None
    assert not torch.equal(before, model.backbone.bn1.running_mean)
    assert all(p.grad is not None for group in model.parameter_groups() for p in group.parameters)
    assert model.backbone.bn1.weight.grad is None
