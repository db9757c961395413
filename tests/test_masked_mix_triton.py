"""masked_mix's, normalise's and choose_classes' Triton kernels: equal to the reference, GPU or interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fastuda_kernels import masked_mix as public
from fastuda_kernels.masked_mix import MixedCrops, Normalisation, reference
from fastuda_kernels.masked_mix import triton as fused
from fastuda_kernels.operators import INTERPRETED

RGB = Normalisation(mean=(123.675, 116.28, 103.53), scale=(0.017, 0.0175, 0.0174), bgr=False)
CAFFE = Normalisation(mean=(104.007, 116.669, 122.679), scale=(1.0, 1.0, 1.0), bgr=True)


def crops(num_images: int, height: int, width: int, num_classes: int = 19, *, device: torch.device) -> dict[str, Any]:
    """Arguments of `masked_mix`, everything random."""
    generator = torch.Generator().manual_seed(height * 31 + width)
    size = (num_images, height, width)

    def random(*shape: int, high: int = 256) -> Tensor:
        return torch.randint(0, high, shape, generator=generator, dtype=torch.uint8).to(device)

    source_label = random(*size, high=num_classes)
    source_label[torch.rand(size, generator=generator).to(device) < 0.1] = 255
    return {
        "source_weak": random(*size, 3),
        "source_strong": random(*size, 3),
        "target_weak": random(*size, 3),
        "target_strong": random(*size, 3),
        "source_label": source_label,
        "pseudo_label": random(*size, high=num_classes),
        "confidence": torch.rand(size, generator=generator).to(device),
        "chosen": torch.rand(num_images, num_classes, generator=generator).to(device) < 0.5,
        "htcm_label": random(*size, high=num_classes),
        "auxiliary_pseudo_label": random(*size, high=num_classes),
    }


def with_paste_mask(arguments: dict[str, Any], dtype: torch.dtype = torch.bool) -> dict[str, Any]:
    """The same, pasting a random third of the pixels, whatever their labels; numbers from 1 to 255 as uint8."""
    label = arguments["source_label"]
    generator = torch.Generator().manual_seed(label.numel())
    mask = torch.rand(label.shape, generator=generator).to(label.device) < 0.3
    if dtype == torch.uint8:
        mask = mask * torch.randint(1, 256, label.shape, generator=generator, dtype=dtype).to(label.device)
    return arguments | {"chosen": mask}


def held_to_reference(arguments: dict[str, Any], **settings: Any) -> MixedCrops:
    """The kernel's result, every field equal to the reference's in value, type and memory layout."""
    defaults: dict[str, Any] = {
        "normalisation": RGB,
        "confidence_threshold": 0.5,
        "ignore_index": 255,
        "keep_pasted": "nowhere",
        "bands": False,
    }
    complete = {"htcm_label": None, "auxiliary_pseudo_label": None} | arguments | defaults | settings
    actual, expected = fused.masked_mix(**complete), reference.masked_mix(**complete)
    for name, ours, theirs in zip(MixedCrops._fields, actual, expected, strict=True):
        if theirs is None:
            assert ours is None, name
            continue
        assert (ours.dtype, ours.shape, ours.stride()) == (theirs.dtype, theirs.shape, theirs.stride()), name
        if INTERPRETED and ours.dtype == torch.bfloat16:  # the interpreter cuts bits off where a GPU rounds
            torch.testing.assert_close(ours, theirs, rtol=2**-7, atol=0)
        else:
            assert torch.equal(ours, theirs), name
    return actual


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (65, 65), (91, 161)])
@pytest.mark.parametrize("num_images", [1, 3])
def test_equals_the_reference(num_images: int, size: tuple[int, int], device: torch.device) -> None:
    held_to_reference(crops(num_images, *size, device=device), bands=True)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8])
@pytest.mark.parametrize("keep", ["nowhere", "inside", "everywhere"])
def test_a_paste_mask_equals_the_reference(keep: str, dtype: torch.dtype, device: torch.device) -> None:
    for num_images, size in ((1, (1, 1)), (3, (1, 9)), (3, (31, 47))):
        arguments = with_paste_mask(crops(num_images, *size, device=device), dtype)
        mixed = held_to_reference(arguments, keep_pasted=keep, bands=True)
        assert torch.equal(mixed.pasted, arguments["chosen"] != 0)
        held_to_reference(arguments, keep_pasted=keep, normalisation=CAFFE)


@pytest.mark.parametrize("keep", ["nowhere", "inside", "everywhere"])
@pytest.mark.parametrize("bands", [False, True])
@pytest.mark.parametrize("normalisation", [RGB, CAFFE])
def test_every_setting(keep: str, bands: bool, normalisation: Normalisation, device: torch.device) -> None:
    arguments = crops(3, 13, 17, device=device)
    held_to_reference(arguments, keep_pasted=keep, bands=bands, normalisation=normalisation)
    own_labels = {"htcm_label": None, "auxiliary_pseudo_label": None}
    held_to_reference(arguments | own_labels, keep_pasted=keep, bands=bands, normalisation=normalisation)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_output_type(dtype: torch.dtype, device: torch.device) -> None:
    for normalisation in (RGB, CAFFE):
        held_to_reference(crops(3, 9, 11, device=device), normalisation=normalisation._replace(dtype=dtype))


@given(st.integers(1, 3), st.integers(1, 30), st.integers(1, 30), st.integers(1, 40))
def test_any_shape(num_images: int, height: int, width: int, num_classes: int) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    arguments = crops(num_images, height, width, num_classes, device=device)
    held_to_reference(arguments, bands=True, keep_pasted="inside")
    held_to_reference(with_paste_mask(arguments), bands=True, keep_pasted="everywhere")


def test_nothing_chosen_and_nothing_confident(device: torch.device) -> None:
    arguments = crops(1, 7, 9, device=device)
    arguments["chosen"] = torch.zeros_like(arguments["chosen"])
    mixed = held_to_reference(arguments, confidence_threshold=1.0, bands=True)
    assert not mixed.pasted.any()
    assert torch.equal(mixed.label_hts, arguments["source_label"])


@pytest.mark.parametrize("by_pixel", [False, True])
def test_crops_that_are_slices(by_pixel: bool, device: torch.device) -> None:
    arguments = crops(3, 20, 24, device=device)
    arguments = with_paste_mask(arguments) if by_pixel else arguments
    cut = {name: t if t.ndim == 2 else t[:, 3:14, ::2] for name, t in arguments.items()}
    assert not cut["source_weak"].is_contiguous()
    copied = {name: t.contiguous() for name, t in cut.items()}
    ours, expected = (
        held_to_reference(copied),
        fused.masked_mix(
            **cut, normalisation=RGB, confidence_threshold=0.5, ignore_index=255, keep_pasted="nowhere", bands=False
        ),
    )
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


@pytest.mark.usefixtures("poisoned")
def test_every_output_is_written(device: torch.device) -> None:
    arguments = crops(3, 23, 29, device=device)
    held_to_reference(arguments, bands=True)
    held_to_reference(with_paste_mask(arguments), bands=True)


@pytest.mark.parametrize("normalisation", [RGB, CAFFE, CAFFE._replace(dtype=torch.float16)])
@pytest.mark.parametrize("size", [(1, 1), (31, 47)])
def test_normalise_equals_the_reference(
    size: tuple[int, int], normalisation: Normalisation, device: torch.device
) -> None:
    images = crops(3, *size, device=device)["source_weak"]
    ours, expected = fused.normalise(images, normalisation), reference.normalise(images, normalisation)
    assert (ours.dtype, ours.stride()) == (expected.dtype, expected.stride())
    assert torch.equal(ours, expected)


@pytest.mark.parametrize("off_by_one", [False, True])
@pytest.mark.parametrize("min_class", [0, 5])
@pytest.mark.parametrize("fraction", [0.5, 0.01, 1.0])
def test_choice_equals_the_reference(fraction: float, min_class: int, off_by_one: bool, device: torch.device) -> None:
    for num_classes, size in ((19, (70, 65)), (3, (1, 1)), (40, (9, 9))):
        labels = crops(3, *size, num_classes, device=device)["source_label"]
        labels[1] = 255
        keys = torch.rand(3, num_classes, generator=torch.Generator().manual_seed(1)).to(device)
        ours = fused.choose_classes(labels, keys, fraction, min_class, off_by_one)
        assert torch.equal(ours, reference.choose_classes(labels, keys, fraction, min_class, off_by_one))


@pytest.mark.parametrize("num_classes", [5, 19, 150])
def test_equal_keys_go_by_class_number(num_classes: int, device: torch.device) -> None:
    """Within a part of the classes and across parts: the kernel compares them a part at a time."""
    labels = torch.arange(num_classes, dtype=torch.uint8, device=device).view(1, 1, -1).repeat(3, 1, 1)
    keys = torch.full((3, num_classes), 0.5, device=device)
    keys[1] = torch.arange(num_classes) % 2  # even classes before odd ones
    keys[2, -1] = 0.25
    chosen = fused.choose_classes(labels, keys, 0.5, 0, False)
    half = num_classes // 2
    expected = [[*range(half)], [*range(0, 2 * half, 2)], [*range(half - 1), num_classes - 1]]
    assert [row.nonzero().flatten().tolist() for row in chosen] == expected
    assert torch.equal(chosen, reference.choose_classes(labels, keys, 0.5, 0, False))


@pytest.mark.usefixtures("kernels_everywhere")
def test_the_public_functions_pass_everything_on(device: torch.device) -> None:
    arguments = crops(3, 13, 17, device=device)
    settings: dict[str, Any] = {"keep_pasted": "inside", "bands": True, "ignore_index": 7, "normalisation": CAFFE}
    ours = public.masked_mix(**arguments, **settings, confidence_threshold=0.3)
    expected = reference.masked_mix(**arguments, **settings, confidence_threshold=0.3)
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True) if a is not None and b is not None)
    by_pixel = with_paste_mask(arguments)
    expected = reference.masked_mix(**by_pixel, **settings, confidence_threshold=0.3)
    by_pixel |= {"chosen": None, "paste_mask": by_pixel["chosen"]}
    ours = public.masked_mix(**by_pixel, **settings, confidence_threshold=0.3)
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True) if a is not None and b is not None)
    assert torch.equal(
        public.normalise(arguments["source_weak"], CAFFE), fused.normalise(arguments["source_weak"], CAFFE)
    )
    keys = torch.rand(3, 19, generator=torch.Generator().manual_seed(0)).to(device)
    chosen = public.choose_classes(arguments["source_label"], keys, fraction=0.3, min_class=2, off_by_one=True)
    assert torch.equal(chosen, reference.choose_classes(arguments["source_label"], keys, 0.3, 2, True))


def test_the_operators_are_sound(device: torch.device) -> None:
    own = crops(1, 3, 4, 5, device=device)
    order = (*list(own)[:6], "htcm_label", "auxiliary_pseudo_label", "confidence", "chosen")
    numbers = ([1.0, 2.0, 3.0], [1.0, 1.0, 1.0], True, torch.float32)
    for arguments in (own, with_paste_mask(own), with_paste_mask(own, torch.uint8)):
        torch.library.opcheck(fused.mix, (*(arguments[name] for name in order), *numbers, 0.5, 255, 1, True))
    torch.library.opcheck(fused.normalise_values, (own["source_weak"], *numbers))
    for off_by_one in (False, True):
        keys = torch.rand(1, 5, device=device)
        torch.library.opcheck(fused.choose_present, (own["source_label"], keys, 0.5, 0, off_by_one))


def test_compiles_without_a_graph_break(device: torch.device) -> None:
    own = crops(1, 5, 6, 4, device=device)
    keys = torch.rand(1, 4, generator=torch.Generator().manual_seed(0)).to(device)

    def mix(keys: Tensor) -> Tensor:
        chosen = fused.choose_classes(own["source_label"], keys, 0.5, 0, False)
        return fused.masked_mix(
            **(own | {"chosen": chosen}),
            normalisation=RGB,
            confidence_threshold=0.5,
            ignore_index=255,
            keep_pasted="nowhere",
            bands=False,
        ).hts

    assert torch.equal(torch.compile(mix, fullgraph=True, backend="aot_eager")(keys), mix(keys))


@pytest.mark.usefixtures("kernels_everywhere")
def test_a_paste_mask_compiles_without_a_graph_break(device: torch.device) -> None:
    own = with_paste_mask(crops(1, 5, 6, 4, device=device))
    mask = own.pop("chosen")

    def mix(mask: Tensor) -> tuple[Tensor, Tensor]:
        mixed = public.masked_mix(**own, paste_mask=mask, normalisation=RGB, confidence_threshold=0.5)
        return mixed.weak, mixed.label_st

    compiled = torch.compile(mix, fullgraph=True, backend="aot_eager")
    assert all(torch.equal(a, b) for a, b in zip(compiled(mask), mix(mask), strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="needs a CUDA device")
class TestGpu:
    device = torch.device("cuda")

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_the_size_of_the_paper(self, dtype: torch.dtype) -> None:
        arguments = crops(2, 512, 512, device=self.device)
        held_to_reference(arguments, bands=True, normalisation=CAFFE._replace(dtype=dtype))
        held_to_reference(with_paste_mask(arguments), bands=True, normalisation=CAFFE._replace(dtype=dtype))

    @pytest.mark.parametrize("by_pixel", [False, True])
    def test_a_captured_graph_replays_the_same_mix(self, by_pixel: bool) -> None:
        arguments = crops(2, 64, 64, device=self.device)
        arguments = with_paste_mask(arguments) if by_pixel else arguments
        settings: dict[str, Any] = {
            "normalisation": RGB, "confidence_threshold": 0.5, "ignore_index": 255, "keep_pasted": "nowhere",
            "bands": True,
        }  # fmt: skip
        fused.masked_mix(**arguments, **settings)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = fused.masked_mix(**arguments, **settings)
        arguments["chosen"].logical_not_()
        graph.replay()
        again = fused.masked_mix(**arguments, **settings)
        assert all(torch.equal(a, b) for a, b in zip(captured, again, strict=True) if a is not None and b is not None)
