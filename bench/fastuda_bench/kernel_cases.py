"""What `fastuda bench kernels` times: each operation at a training step's sizes, by each implementation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fastuda.model.aspp import ASPP
from fastuda_bench import formulas
from fastuda_bench.limits import Work
from fastuda_kernels.batch_norm import batch_norm, batch_norm_twice
from fastuda_kernels.masked_mix import MixedCrops, Normalisation
from fastuda_kernels.masked_mix import masked_mix as public_masked_mix
from fastuda_kernels.masked_mix import reference as masked_mix_reference
from fastuda_kernels.pixel_contrast import pixel_contrast
from fastuda_kernels.pixel_contrast.reference import blockwise_contrast
from fastuda_kernels.pseudo_label import argmax_confusion, pseudo_label
from fastuda_kernels.upsample_cross_entropy import upsample_cross_entropy

NUM_CLASSES = 19
SCALE = 20.0
_INPUT = Normalisation(mean=(104.007, 116.669, 122.679), scale=(1.0, 1.0, 1.0), bgr=True)


@dataclass(frozen=True)
class Case:
    """One operation at one size."""

    operation: str
    size: str
    implementations: dict[str, Callable[[], Any]]
    """`eager` is the formula one would type (and what is compiled); `reference` and `triton` are fastuda's."""
    work: Work
    """Of a forward pass, or, with `inputs`, of forward and backward."""
    inputs: list[Tensor] = field(default_factory=list)
    """What a backward pass leads to; none where there is none."""
    upstream: Tensor | list[Tensor] | None = None
    """The gradient that a backward pass starts with, one for each of several results, where they are no scalars."""
    trust: Callable[[Any], list[Tensor]] = lambda result: [result]
    """The tensors of a result in which implementations must agree."""


def cases(device: torch.device, *, small: bool = False) -> list[Case]:
    """The real sizes of the `gta2cs` step at batch 2, or of a toy; logits bf16 and channels-last on a GPU."""
    crop, low_crop, view, low_view = (64, 9, (64, 96), (9, 13)) if small else (512, 65, (720, 1280), (91, 161))
    made = [
        _contrast(device, low_crop**2),
        _cross_entropy(device, (low_crop, low_crop), (crop, crop)),
        _cross_entropy(device, low_view, view),
        _pseudo_label(device, crop, (80, 160) if small else (640, 1280)),
        _confusion(device, (80, 160) if small else (1024, 2048)),
        _mix(device, 2, crop),
        _batch_norm(device, (2, 40, 5, 7) if small else (2, 1024, *low_view), num_groups=1, block_end=True),
        _batch_norm(device, (6, 24, 5, 5) if small else (6, 256, low_crop, low_crop), num_groups=3),
    ]
    made.append(_classifier(device, *((2, 32, 27, 29) if small else (2, 2048, *low_view))))
    if device.type == "cuda" and not small:
        made.append(_mix(device, 32, crop))
    return made


def _logits(device: torch.device, num_images: int, low: tuple[int, int], seed: int = 0) -> Tensor:
    values = 3 * torch.randn(num_images, NUM_CLASSES, *low, generator=torch.Generator().manual_seed(seed))
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    return values.to(device, dtype).contiguous(memory_format=torch.channels_last)


def _labels(device: torch.device, *size: int) -> Tensor:
    """uint8 blocks of 16 pixels of a class, one in ten ignored: neighbours agree, as on a street."""
    coarse = torch.randint(0, NUM_CLASSES, (size[0], *(-(-n // 16) for n in size[1:])), generator=_generator())
    coarse[torch.rand(coarse.shape, generator=_generator()) < 0.1] = 255
    full = coarse.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, : size[1], : size[2]]
    return full.to(torch.uint8).to(device).contiguous()


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _contrast(device: torch.device, num_positions: int) -> Case:
    side = round(num_positions**0.5)
    first, second = (
        _logits(device, 2, (side, side), seed).flatten(2).transpose(1, 2).detach().requires_grad_() for seed in (0, 1)
    )
    pairs = 2 * (2 * num_positions) ** 2
    moved = 2 * (first.numel() + second.numel()) * first.element_size()

    def reference() -> Tensor:
        wide = [view.softmax(-1, dtype=torch.float32) for view in (first, second)]
        return blockwise_contrast(wide[0], wide[1], SCALE, None)

    return Case(
        "pixel_contrast",
        f"2 images × 2·{num_positions} rows × {NUM_CLASSES}",
        {
            "eager": lambda: formulas.dense_contrast(first, second, SCALE),
            "reference": reference,
            "triton": lambda: pixel_contrast(first, second, SCALE, from_logits=True),
        },
        Work(bytes=moved, flops=pairs * 2 * NUM_CLASSES * 3, exponentials=2 * pairs),
        [first, second],
    )


def _cross_entropy(device: torch.device, low: tuple[int, int], full: tuple[int, int]) -> Case:
    logits = _logits(device, 2, low).requires_grad_()
    labels = _labels(device, 2, *full)
    wide = labels.long()
    moved = 2 * logits.numel() * logits.element_size() + labels.numel()
    return Case(
        "upsample_cross_entropy",
        f"2×{NUM_CLASSES}×{low[0]}×{low[1]} → {full[0]}×{full[1]}",
        {
            "eager": lambda: formulas.upsampled_cross_entropy(logits, wide),
            "triton": lambda: upsample_cross_entropy(logits, labels),
        },
        Work(bytes=moved, exponentials=labels.numel() * NUM_CLASSES),
        [logits],
    )


def _pseudo_label(device: torch.device, crop: int, view: tuple[int, int]) -> Case:
    low = (view[0] // 8 + 1, view[1] // 8 + 1)
    logits = _logits(device, 2, low)
    box = (view[0] // 8, view[1] // 8, view[0] // 2, view[1] // 2)
    boxes = torch.tensor([box, box], dtype=torch.float32, device=device)
    num_pixels = 2 * crop * crop
    return Case(
        "pseudo_label",
        f"2×{NUM_CLASSES}×{low[0]}×{low[1]} → {crop}² crops",
        {
            "eager": lambda: formulas.cropped_pseudo_label(logits, view, boxes, (crop, crop)),
            "triton": lambda: pseudo_label(logits, (crop, crop), view_size=view, boxes=boxes),
        },
        Work(bytes=logits.numel() * logits.element_size() + 5 * num_pixels, exponentials=num_pixels * NUM_CLASSES),
        trust=lambda labels: [labels[1]],
    )


def _confusion(device: torch.device, full: tuple[int, int]) -> Case:
    low = (full[0] * 5 // 64 + 1, full[1] * 5 // 64 + 1)
    logits, labels = _logits(device, 2, low), _labels(device, 2, *full)
    return Case(
        "argmax_confusion",
        f"2×{NUM_CLASSES}×{low[0]}×{low[1]} → {full[0]}×{full[1]}",
        {
            "eager": lambda: formulas.upsampled_confusion(logits, labels),
            "triton": lambda: argmax_confusion(logits, labels),
        },
        Work(bytes=logits.numel() * logits.element_size() + labels.numel()),
        trust=lambda counts: [counts.diagonal().sum() / counts.sum(), counts.sum(1) / counts.sum()],
    )


def _mix(device: torch.device, num_images: int, crop: int) -> Case:
    generator = _generator()

    def image() -> Tensor:
        size = (num_images, crop, crop, 3)
        return torch.randint(0, 256, size, generator=generator, dtype=torch.uint8).to(device)

    weak, strong, target_weak, target_strong = image(), image(), image(), image()
    source, pseudo = _labels(device, num_images, crop, crop), _labels(device, num_images, crop, crop).flip(1)
    confidence = torch.rand(num_images, crop, crop, generator=generator).to(device)
    chosen = (torch.rand(num_images, NUM_CLASSES, generator=generator) < 0.5).to(device)
    normalisation = _INPUT._replace(dtype=torch.bfloat16 if device.type == "cuda" else torch.float32)

    def eager() -> MixedCrops:
        return masked_mix_reference.masked_mix(
            weak, strong, target_weak, target_strong, source, pseudo, confidence, chosen,
            normalisation, 0.95, 255, "nowhere", None, None, False,
        )  # fmt: skip

    def fused() -> MixedCrops:
        return public_masked_mix(
            weak, strong, target_weak, target_strong, source, pseudo, confidence, chosen,
            normalisation=normalisation, confidence_threshold=0.95,
        )  # fmt: skip

    num_pixels = num_images * crop * crop
    read = num_pixels * (4 * 3 + 1 + 1 + 4)
    written = num_pixels * (3 * 3 * normalisation.dtype.itemsize + 4 + 1)
    return Case(
        "masked_mix",
        f"{num_images} crops of {crop}²",
        {"eager": eager, "triton": fused},
        Work(bytes=read + written),
        trust=lambda mixed: [tensor for tensor in mixed if tensor is not None],
    )


def _batch_norm(
    device: torch.device, size: tuple[int, int, int, int], *, num_groups: int, block_end: bool = False
) -> Case:
    """Within a residual block, or at its end: with a residual, and the result for two readers."""
    generator = _generator()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32

    def image() -> Tensor:
        values = torch.randn(size, generator=generator).to(device, dtype)
        return values.contiguous(memory_format=torch.channels_last)

    x, residual = image().requires_grad_(), image().requires_grad_()
    weight, bias = (torch.rand(size[1], generator=generator).to(device).requires_grad_() for _ in range(2))
    running = torch.zeros(size[1], device=device), torch.ones(size[1], device=device)
    own = (x, weight, bias, *running)

    def eager() -> list[Tensor]:
        y = formulas.batch_norm_a_group(*own, num_groups, residual if block_end else None)
        return [y, y] if block_end else [y]

    def fused() -> list[Tensor]:
        if block_end:
            return list(batch_norm_twice(*own, momentum=0.1, num_groups=num_groups, residual=residual))
        return [batch_norm(*own, momentum=0.1, num_groups=num_groups, relu=True)]

    # x read twice, y written; dy and x read twice, dx written; at a block's end the residual and another dy read too,
    # and dz written. ReLU's bits are written, and read where dy is, which is dz the second time at a block's end.
    passes, masks = (11, 2) if block_end else (8, 3)
    return Case(
        "batch_norm",
        f"{'×'.join(map(str, size))}, {'residual, ReLU, twice' if block_end else 'ReLU'}, groups: {num_groups}",
        {"eager": eager, "triton": fused},
        Work(bytes=passes * x.numel() * x.element_size() + masks * x.numel() / 8),
        [x, weight, bias, residual] if block_end else [x, weight, bias],
        [image(), image()] if block_end else [image()],
        # bf16 results differ by a rounding or two a value, which a channel's moments do not show.
        trust=lambda ys: [ys[0].float().mean((0, 2, 3)), ys[0].float().square().mean((0, 2, 3))],
    )


def _classifier(device: torch.device, num_images: int, channels: int, height: int, width: int) -> Case:
    """Not a kernel but a way to use the libraries': dilated convolutions, a product as it comes, one of whole tiles."""
    generator = _generator()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    features = torch.randn(num_images, channels, height, width, generator=generator).to(device, dtype)
    features = features.contiguous(memory_format=torch.channels_last).requires_grad_()
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        head = ASPP(channels, NUM_CLASSES, (6, 12, 18, 24)).to(device)
    convolutions = [branch for branch in head.branches if isinstance(branch, torch.nn.Conv2d)]
    weights = [one.weight for one in convolutions]
    biases = [one.bias for one in convolutions if one.bias is not None]

    def by(gemm: bool) -> Callable[[], Tensor]:
        def call() -> Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                head.gemm = gemm
                logits: Tensor = head(features)
            return logits.float()

        return call

    def unpadded() -> Tensor:
        return formulas.shifted_sum(features, weights, biases, head.dilations)

    ways = {"unpadded": unpadded, "padded": by(gemm=True)}
    if device.type == "cuda":  # the shifts are meant to be compiled
        ways = {name: torch.compile(way, dynamic=False) for name, way in ways.items()}
    positions, taps = num_images * height * width, 33 * NUM_CLASSES
    moved = 3 * features.numel() * features.element_size() + 4 * positions * taps * features.element_size()
    return Case(
        "classifier",
        f"{num_images}×{channels}×{height}×{width} → {NUM_CLASSES}, four dilations",
        {"eager": by(gemm=False), **ways},
        Work(bytes=moved, flops=3 * 2 * positions * taps * channels),
        [features, *weights],
        torch.randn(num_images, NUM_CLASSES, height, width, generator=generator).to(device),
        # Eager rounds each branch to bf16 and the ways round each tap, so a position differs; its mean does not.
        trust=lambda logits: [logits.float().mean((2, 3)), logits.float().square().mean((0, 2, 3)).sqrt()],
    )
