"""The classifier as one matrix product equals the sum of dilated convolutions: logits and gradients, in fp64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastuda.model.aspp import ASPP
from fastuda.model.deeplab.network import DeepLabV2


def both_ways(dilations: tuple[int, ...], size: tuple[int, int], dtype: torch.dtype) -> list[list[Tensor]]:
    """Outputs and the gradients of features, weights and biases, by convolutions and by the product."""
    results = []
    for gemm in (False, True):
        torch.manual_seed(0)
        head = ASPP(16, 5, dilations).to(dtype)
        head.gemm = gemm
        features = torch.randn(2, 16, *size, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
        for branch in head.branches:
            torch.nn.init.normal_(branch.bias)
        for _ in range(2):  # gradients accumulate, as they do over the passes of an iteration
            logits = head(features)
            (logits * torch.randn_like(logits)).sum().backward()
        results.append([logits.detach(), features.grad, *(p.grad for p in head.parameters())])
    return results


@pytest.mark.parametrize("dilations", [(6, 12, 18, 24), (6, 12), (1,), (2, 2)])
@pytest.mark.parametrize("size", [(65, 65), (33, 17), (5, 30), (1, 1)])
def test_the_product_equals_the_convolutions(dilations: tuple[int, ...], size: tuple[int, int]) -> None:
    convolved, product = both_ways(dilations, size, torch.float64)
    assert len(product) == 2 + 2 * len(dilations)
    for ours, expected in zip(product, convolved, strict=True):
        # A tap that never meets a feature has a gradient of zero one way and none the other.
        expected = torch.zeros_like(ours) if expected is None else expected
        torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-11)


def test_in_bf16_the_product_errs_no_more_than_the_convolutions() -> None:
    exact = both_ways((6, 12, 18, 24), (33, 33), torch.float64)[0][0]
    torch.manual_seed(0)
    head = ASPP(16, 5, (6, 12, 18, 24)).bfloat16()
    features = torch.randn(2, 16, 33, 33, dtype=torch.float64).bfloat16()
    for branch in head.branches:
        torch.nn.init.zeros_(branch.bias)
    with torch.no_grad():
        reference = ASPP(16, 5, (6, 12, 18, 24)).double()
        reference.load_state_dict({name: value.double() for name, value in head.state_dict().items()})
        exact = reference(features.double())
        errors = []
        for gemm in (False, True):
            head.gemm = gemm
            errors.append(float((head(features).double() - exact).abs().max()))
    assert errors[1] <= 1.5 * errors[0]


def test_the_switch_turns_both_heads() -> None:
    model = DeepLabV2(5, depth=18, width=0.0625)
    model.set_gemm_aspp(True)
    assert model.auxiliary_head is not None
    assert (model.head.gemm, model.auxiliary_head.gemm) == (True, True)
    DeepLabV2(5, depth=18, width=0.0625, auxiliary=False).set_gemm_aspp(True)
