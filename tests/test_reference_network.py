"""The whole network against a forward pass written from its definition, from a state dict and functions alone."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastuda.model.deeplab.network import DeepLabV2
from fastuda.model.deeplab.resnet import Depth, StrideOn

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
# Stride of a stage's first block, dilation of all its 3×3 convolutions.
STAGES = ((1, 1), (2, 1), (1, 2), (1, 4))
ASPP_DILATIONS = (6, 12, 18)
MOMENTUM = 0.1


class Reference:
    """DeepLab-v2 from `state`, whose running statistics it moves in place when `training`."""

    def __init__(self, state: dict[str, Tensor], depth: int, stride_on: str, pool_padding: int, training: bool) -> None:
        self.state = state
        self.depth = depth
        self.stride_on = stride_on
        self.pool_padding = pool_padding
        self.training = training

    def conv_norm(self, x: Tensor, conv: str, norm: str, stride: int = 1, dilation: int = 1) -> Tensor:
        weight = self.state[f"{conv}.weight"]
        x = F.conv2d(x, weight, None, stride, dilation * (weight.shape[-1] // 2), dilation)
        mean, variance, scale, shift = (
            self.state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, scale, shift, self.training, MOMENTUM, 1e-5)

    def block(self, x: Tensor, name: str, stride: int, dilation: int) -> Tensor:
        strides, dilations = (stride, 1), (dilation, dilation)
        if self.depth > 18:
            strides, dilations = (stride, 1, 1), (1, dilation, 1)
            if self.stride_on == "3x3":
                strides = (1, stride, 1)
        y = x
        for number, (own_stride, own_dilation) in enumerate(zip(strides, dilations, strict=True), start=1):
            y = self.conv_norm(y, f"{name}.conv{number}", f"{name}.bn{number}", own_stride, own_dilation)
            y = F.relu(y) if number < len(strides) else y
        if f"{name}.downsample.0.weight" in self.state:
            x = self.conv_norm(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
        return F.relu(x + y)

    def head(self, features: Tensor, name: str) -> Tensor:
        branches = [
            F.conv2d(
                features,
                self.state[f"{name}.branches.{number}.weight"],
                self.state[f"{name}.branches.{number}.bias"],
                padding=dilation,
                dilation=dilation,
            )
            for number, dilation in enumerate(ASPP_DILATIONS)
        ]
        return torch.stack(branches).sum(0)

    def logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.conv_norm(images, "backbone.conv1", "backbone.bn1", stride=2))
        x = F.max_pool2d(x, 3, 2, self.pool_padding, ceil_mode=True)
        features = []
        for stage, ((first_stride, dilation), count) in enumerate(zip(STAGES, BLOCKS[self.depth], strict=True), 1):
            for index in range(count):
                stride = first_stride if index == 0 else 1
                x = self.block(x, f"backbone.layer{stage}.{index}", stride, dilation)
            features.append(x)
        return self.head(features[3], "head"), self.head(features[2], "auxiliary_head")


def network(depth: Depth, stride_on: StrideOn, pool_padding: int) -> DeepLabV2:
    """fp64, and no bias, scale or statistic left at 0 or 1, where a mistake would not show."""
    generator = torch.Generator().manual_seed(0)
    settings = {"width": 0.0625, "stride_on": stride_on, "pool_padding": pool_padding, "aspp": ASPP_DILATIONS}
    model = DeepLabV2(5, depth=depth, **settings).double()  # type: ignore[arg-type]
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        if tensor.dim() == 1:
            middle = 0.0 if name.endswith(("bias", "mean")) else 1.0
            tensor.data.copy_(middle + 0.5 * (torch.rand(tensor.shape, generator=generator) - 0.5))
    return model


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("pool_padding", [0, 1])
@pytest.mark.parametrize("stride_on", ["1x1", "3x3"])
@pytest.mark.parametrize("depth", [18, 50, 101])
def test_logits_of_both_heads_are_those_of_the_definition(
    depth: Depth, stride_on: StrideOn, pool_padding: int, training: bool
) -> None:
    model = network(depth, stride_on, pool_padding).train(training)
    state = copy.deepcopy(model.state_dict())
    images = torch.randn(2, 3, 55, 70, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        found = model(images)
        expected = Reference(state, depth, stride_on, pool_padding, training).logits(images)
    for logits, definition in zip((found.logits, found.auxiliary), expected, strict=True):
        assert float(definition.std()) > 0.01
        torch.testing.assert_close(logits, definition, rtol=1e-10, atol=1e-10)
    for name, value in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(value, state[name], rtol=1e-10, atol=1e-10)
