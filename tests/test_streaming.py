"""Evaluation streams: what it holds does not grow with the number of images."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastuda.data.loading.evaluation_loader import EvaluationLoader
from fastuda.data.packing.pack import Packed
from fastuda.evaluation.scoring import scored
from fastuda.metrics.boundary import BoundaryMeter
from fastuda.metrics.boundary_map import boundary_band
from fastuda.metrics.confidence import ConfidenceMeter
from fastuda.model.passes import Passes
from fastuda.model.segmenter import Outputs
from fastuda.recipe import Recipe
from fastuda_kernels.pseudo_label import pseudo_label

CPU = torch.device("cpu")
HEIGHT, WIDTH = 512, 1024
NUM_IMAGES = 36


class Mean(nn.Module):
    """Three classes from an image's colours, coarsely."""

    align_corners = True

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Outputs:
        return Outputs(nn.functional.adaptive_avg_pool2d(images, (4, 8)), None)


def resident_bytes() -> int:
    """Of this process, without what it has freed and keeps for itself."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def test_three_times_the_images_need_no_more_memory(
    pack: Callable[..., Packed], tiny_recipe: Callable[..., Recipe]
) -> None:
    recipe = tiny_recipe('classes.names=["a", "b", "c"]')
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (8, 16, 3), dtype=np.uint8).repeat(HEIGHT // 8, 0).repeat(WIDTH // 16, 1)
    blocks = rng.integers(0, 3, (NUM_IMAGES, 8, 16), dtype=np.uint8)
    labels = [one.repeat(HEIGHT // 8, 0).repeat(WIDTH // 16, 1) for one in blocks]
    packed = pack(recipe, [image] * NUM_IMAGES, labels, size=(64, 32), own_label_size=True)
    del labels
    boundary, confidence = BoundaryMeter(3, CPU), ConfidenceMeter(3, CPU)
    held: list[int] = []

    def look(_: str, outputs: Outputs, label: Tensor) -> None:
        prediction, certainty = (one[0] for one in pseudo_label(outputs.logits, (HEIGHT, WIDTH)))
        boundary.add(prediction, label)
        confidence.add(prediction, certainty, label, boundary_band(label, 5, 3))
        held.append(resident_bytes())

    passes: Any = Passes.of(recipe, CPU)
    found = scored(Mean(), EvaluationLoader(packed, 4, 1, CPU), recipe, passes, on_image=look)  # type: ignore[arg-type]
    assert len(held) == NUM_IMAGES
    assert found["full"].miou > 0
    assert confidence.result().num_pixels == NUM_IMAGES * HEIGHT * WIDTH
    # Twenty-four labels alone would be 12 MiB, as many maps of confidence 48.
    assert max(held[12:]) - max(held[:12]) < 6 * 2**20
