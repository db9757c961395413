"""Labels made a few rows at a time against torch's own interpolation of the whole image, to the bit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import fastuda.evaluation.label_bands as module
from fastuda.evaluation.label_bands import label_at, label_bands
from fastuda.model.segmenter import Outputs

SHAPES = [  # logits' height and width, the image's
    ((1, 1), (1, 1)), ((1, 1), (140, 90)), ((1, 7), (140, 90)), ((9, 1), (200, 3)), ((5, 6), (1, 333)),
    ((5, 6), (333, 1)), ((9, 7), (30, 40)), ((9, 7), (64, 64)), ((9, 7), (64, 65)), ((17, 33), (129, 257)),
    ((21, 41), (301, 403)), ((81, 161), (100, 203)), ((64, 48), (64, 48)), ((64, 48), (48, 63)), ((64, 48), (2, 200)),
]  # fmt: skip


def random(channels: int, height: int, width: int) -> Tensor:
    return torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(channels * height + width))


def with_ties(channels: int, height: int, width: int) -> Tensor:
    return random(channels, height, width).round()


def nearly_alike(channels: int, height: int, width: int) -> Tensor:
    """Which channel is highest is a matter of rounding."""
    return random(1, height, width) + 1e-7 * random(channels, height, width)


def all_alike(channels: int, height: int, width: int) -> Tensor:
    return torch.zeros(1, channels, height, width)


def of_torch(logits: Tensor, size: tuple[int, int], align_corners: bool = True) -> Tensor:
    full = F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=align_corners)
    return full.argmax(1)[0].to(torch.uint8)


def label_of(logits: Tensor, size: tuple[int, int], align_corners: bool = True) -> Tensor:
    return torch.from_numpy(label_at(Outputs(logits, align_corners=align_corners), size))


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("made", [random, with_ties, nearly_alike, all_alike])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_bands_are_what_torch_makes_of_the_whole(
    made: Callable[[int, int, int], Tensor], memory_format: torch.memory_format, align_corners: bool
) -> None:
    for low, size in SHAPES:
        for channels in (1, 2, 3, 7, 8, 12, 16, 19, 33):
            logits = made(channels, *low).contiguous(memory_format=memory_format)
            found = label_of(logits, size, align_corners)
            assert torch.equal(found, of_torch(logits, size, align_corners)), (channels, low, size)


def test_with_several_threads_torch_has_another_kernel_for_three_channels() -> None:
    logits, size = nearly_alike(3, 9, 7), (100, 90)
    found = []
    for threads in (2, 1):  # one as in the other tests comes last
        torch.set_num_threads(threads)
        found.append(label_of(logits, size))
        assert torch.equal(found[-1], of_torch(logits, size))
    assert not torch.equal(*found)


def test_the_order_of_sums_decides_where_channels_are_nearly_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, memory_format in (("_PAIR", torch.contiguous_format), ("_CORNERS", torch.channels_last)):
        logits = nearly_alike(16, 21, 41).contiguous(memory_format=memory_format)
        with monkeypatch.context() as patch:
            patch.setattr(module, name, getattr(module, name)[::-1])
            assert not torch.equal(label_of(logits, (301, 403)), of_torch(logits, (301, 403)))


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("budget", [1, 100_000, 1 << 30])
def test_bands_are_as_many_rows_as_the_budget_allows_and_the_label_does_not_depend_on_it(
    monkeypatch: pytest.MonkeyPatch, budget: int, align_corners: bool
) -> None:
    logits, size = random(19, 17, 33), (301, 403)
    monkeypatch.setitem(module._BUDGET, "cpu", budget)
    bands = list(label_bands(Outputs(logits, align_corners=align_corners), size))
    assert {band.shape[1] for band in bands} == {403}
    assert sum(len(band) for band in bands) == 301
    assert max(len(band) for band in bands) <= max(1, budget // (4 * 19 * 403))
    assert np.array_equal(np.concatenate(bands), of_torch(logits, size, align_corners).numpy())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_interpolated_in_float32(dtype: torch.dtype) -> None:
    logits = random(19, 17, 33).to(dtype)
    assert torch.equal(label_of(logits, (90, 301)), of_torch(logits, (90, 301)))


def test_a_logit_that_is_no_number_is_chosen_as_torch_does() -> None:
    logits = random(5, 9, 9)
    logits[0, 3, 4, 4] = float("nan")
    found = label_of(logits, (80, 90))
    assert torch.equal(found, of_torch(logits, (80, 90)))
    assert (found[40:44, 42:48] == 3).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("align_corners", [True, False])
def test_on_a_gpu_the_label_differs_where_two_classes_are_as_good_as_equal_at_most(align_corners: bool) -> None:
    logits = random(19, 81, 161).cuda()
    found = label_of(logits, (999, 1501), align_corners)
    assert (found != of_torch(logits, (999, 1501), align_corners).cpu()).float().mean() < 1e-4
