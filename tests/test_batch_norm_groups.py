"""Grouped passes and fused layers equal separate ones: outputs, gradients and running statistics, in fp64."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from fastuda.model.deeplab.network import DeepLabV2
from fastuda.model.grouped_batch_norm import GroupedBatchNorm2d, grouped
from fastuda.model.passes import Passes, frozen_running_statistics
from fastuda.model.segmenter import Outputs
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


def tensors(logits: Sequence[Outputs]) -> list[Tensor]:
    return [head for one in logits for head in (one.logits, one.auxiliary) if head is not None]


@pytest.mark.parametrize("num_groups", [2, 3, 4])
def test_a_grouped_pass_equals_separate_ones(num_groups: int) -> None:
    plain = network()
    together = copy.deepcopy(plain)
    expected, actual = trained(plain, PLAIN, images(num_groups)), trained(together, GROUPED, images(num_groups))
    for ours, separate in zip(tensors(actual), tensors(expected), strict=True):
        torch.testing.assert_close(ours, separate, rtol=1e-10, atol=1e-12)
    compare(together, plain, rtol=1e-8, atol=1e-10)


def trained(model: DeepLabV2, passes: Passes, groups: Sequence[Tensor]) -> list[Outputs]:
    """Outputs of a pass, whose gradients are then on the model's parameters."""
    logits = passes.each(model, groups)
    sum((i + 1) * head.square().mean() for i, head in enumerate(tensors(logits))).backward()  # type: ignore[union-attr]
    return logits


def compare(ours: DeepLabV2, theirs: DeepLabV2, rtol: float, atol: float) -> None:
    """Gradients and buffers of two networks."""
    for (name, parameter), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (parameter.grad is None) == (other.grad is None), name
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, other.grad, rtol=rtol, atol=atol, msg=name)
    for (name, buffer), other in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(buffer, other, rtol=rtol, atol=atol, msg=name)


@pytest.mark.parametrize("num_groups", [1, 3])
def test_fused_layers_equal_separate_operations(num_groups: int) -> None:
    plain = network()
    fused = copy.deepcopy(plain)
    fused.set_fused_batch_norm(True)
    expected, actual = trained(plain, GROUPED, images(num_groups)), trained(fused, GROUPED, images(num_groups))
    for ours, separate in zip(tensors(actual), tensors(expected), strict=True):
        torch.testing.assert_close(ours, separate, rtol=1e-10, atol=1e-12)
    compare(fused, plain, rtol=1e-8, atol=1e-10)
    fused.set_fused_batch_norm(False)
    assert not any(layer.fused for layer in fused.modules() if isinstance(layer, GroupedBatchNorm2d))


@pytest.mark.usefixtures("kernels_everywhere")
@pytest.mark.parametrize("frozen", [False, True])
def test_a_compiled_network_of_kernels_equals_the_plain_one(frozen: bool, device: torch.device) -> None:
    """Through the operators' boundary: mutated statistics and gradients of a traced network."""
    plain = network().float().to(device)
    fused = copy.deepcopy(plain)
    fused.set_fused_batch_norm(True)
    compiled = torch.compile(fused, backend="aot_eager", fullgraph=True)
    groups = [one.float().to(device) for one in images(2)]
    for _ in range(2):
        results = []
        for model, run in ((plain, plain), (fused, compiled)):
            model.zero_grad()
            with grouped(model, 2), frozen_running_statistics(model) if frozen else nullcontext():
                logits = run(torch.cat(groups))
            (logits.logits.square().mean() + logits.auxiliary.square().mean()).backward()
            results.append(logits)
        for ours, separate in zip(*map(tensors, ([results[1]], [results[0]])), strict=True):
            torch.testing.assert_close(ours, separate, rtol=1e-3, atol=1e-4)
        compare(fused, plain, rtol=1e-2, atol=1e-4)


def test_statistics_gathered_anew_are_the_separate_layers() -> None:
    plain = network()
    fused = copy.deepcopy(plain)
    fused.set_fused_batch_norm(True)
    for model in (plain, fused):
        update_bn(images(3), model)  # a mean over all batches, for which layers have no momentum
    compare(fused, plain, rtol=1e-12, atol=1e-12)
    assert plain.backbone.bn1.momentum is not None


def test_in_evaluation_mode_fused_layers_are_the_separate_ones() -> None:
    plain = network().eval()
    fused = copy.deepcopy(plain)
    fused.set_fused_batch_norm(True)
    image = images(1)[0]
    assert torch.equal(fused(image).logits, plain(image).logits)


def test_common_statistics_would_show() -> None:
    plain = network()
    together = copy.deepcopy(plain)
    expected = PLAIN.each(plain, images(3))
    common = PLAIN.normalised(together, torch.cat(images(3)))
    assert (common.logits - torch.cat([one.logits for one in expected])).abs().max() > 0.01


def test_frozen_statistics_stay_as_they_are() -> None:
    model = network()
    before = {name: buffer.clone() for name, buffer in model.named_buffers() if "running" in name}
    with frozen_running_statistics(model):
        GROUPED.each(model, images(3))
    assert all(torch.equal(dict(model.named_buffers())[name], value) for name, value in before.items())


def test_in_evaluation_mode_groups_make_no_difference() -> None:
    model = network().eval()
    for ours, separate in zip(GROUPED.each(model, images(2)), PLAIN.each(model, images(2)), strict=True):
        torch.testing.assert_close(ours.logits, separate.logits)


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
