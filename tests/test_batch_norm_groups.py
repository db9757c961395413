"""One grouped pass equals separate passes: outputs, gradients and running statistics, in fp64."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from fastuda.method.network import Passes, frozen_running_statistics
from fastuda.model.batch_norm import GroupedBatchNorm2d, grouped
from fastuda.model.deeplab import DeepLabV2, Logits
from fastuda_kernels.masked_mix import Normalisation

PLAIN = Passes(Normalisation(mean=(0.0, 0.0, 0.0), scale=(1.0, 1.0, 1.0), bgr=False), None)
GROUPED = Passes(PLAIN.normalisation, None, grouped=True)


def images(num_groups: int) -> list[Tensor]:
    """Groups of two images that differ in brightness and contrast, so that common statistics would show."""
    generator = torch.Generator().manual_seed(0)
    return [
        (1 + g) * torch.randn(2, 3, 33, 41, dtype=torch.float64, generator=generator) + g for g in range(num_groups)
    ]


def network() -> DeepLabV2:
    torch.manual_seed(0)
    return DeepLabV2(5, depth=18, width=0.0625, aspp=(1, 2)).double().train()


def tensors(logits: Sequence[Logits]) -> list[Tensor]:
    return [head for one in logits for head in one if head is not None]


@pytest.mark.parametrize("num_groups", [2, 3, 4])
def test_a_grouped_pass_equals_separate_ones(num_groups: int) -> None:
    plain = network()
    together = copy.deepcopy(plain)
    expected, actual = PLAIN.each(plain, images(num_groups)), GROUPED.each(together, images(num_groups))
    for ours, separate in zip(tensors(actual), tensors(expected), strict=True):
        torch.testing.assert_close(ours, separate, rtol=1e-10, atol=1e-12)
    for logits in (expected, actual):
        sum((i + 1) * head.square().mean() for i, head in enumerate(tensors(logits))).backward()  # type: ignore[union-attr]
    gradients = {name: parameter.grad for name, parameter in plain.named_parameters()}
    for name, parameter in together.named_parameters():
        if gradients[name] is None:
            assert parameter.grad is None
        else:
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-8, atol=1e-10, msg=name)
    for (name, ours), separate in zip(together.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, separate, rtol=1e-10, atol=1e-12, msg=name)


def test_common_statistics_would_show() -> None:
    plain = network()
    together = copy.deepcopy(plain)
    expected = PLAIN.each(plain, images(3))
    common = PLAIN.normalised(together, torch.cat(images(3)))
    assert (common.main - torch.cat([one.main for one in expected])).abs().max() > 0.01


def test_frozen_statistics_stay_as_they_are() -> None:
    model = network()
    before = {name: buffer.clone() for name, buffer in model.named_buffers() if "running" in name}
    with frozen_running_statistics(model):
        GROUPED.each(model, images(3))
    assert all(torch.equal(dict(model.named_buffers())[name], value) for name, value in before.items())


def test_in_evaluation_mode_groups_make_no_difference() -> None:
    model = network().eval()
    for ours, separate in zip(GROUPED.each(model, images(2)), PLAIN.each(model, images(2)), strict=True):
        torch.testing.assert_close(ours.main, separate.main)


def test_half_precision_is_normalised_in_fp32_and_handed_on_as_it_came() -> None:
    layer = GroupedBatchNorm2d(4).train()
    values = (3 * torch.randn(6, 4, 9, 9, generator=torch.Generator().manual_seed(0))).bfloat16()
    expected = torch.cat([nn.BatchNorm2d(4).train()(part.float()) for part in values.chunk(3)])
    with grouped(layer, 3):
        actual = layer(values)
    assert actual.dtype == torch.bfloat16
    torch.testing.assert_close(actual, expected.bfloat16(), rtol=2**-7, atol=1e-6)


def test_memory_format_is_kept() -> None:
    layer = GroupedBatchNorm2d(4).train()
    with grouped(layer, 2):
        out = layer(torch.randn(4, 4, 5, 7).to(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_groups_end_with_the_context_even_by_an_error() -> None:
    layer = GroupedBatchNorm2d(4).train()
    with pytest.raises(ValueError, match="expected 4D input"), grouped(nn.Sequential(layer), 2):
        layer.eval()(torch.zeros(4))
    assert layer.num_groups == 1
