"""BatchNorm statistics gathered anew on target images, an option at evaluation (`eval.batch_norm`)."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from fastuda.data.loading.evaluation_loader import EvaluationLoader
from fastuda.data.loading.failures import Failures
from fastuda.data.packing.pack import Packed
from fastuda.memory.out_of_memory import memory_told
from fastuda.model.passes import Passes, teaching
from fastuda.model.segmenter import Segmenter
from fastuda.recipe import Recipe
from fastuda_kernels.masked_mix import normalise

NUM_IMAGES = 64
BATCH = 4
"""Images a pass, whose statistics are averaged with those of the other passes: another number gives others."""


def gather_statistics(
    model: Segmenter,
    target: Packed,
    recipe: Recipe,
    passes: Passes,
    device: torch.device,
    failed: Collection[int] = (),
) -> None:
    """Replace the model's running statistics by those of unlabelled target training images, in place.

    Training blends the statistics of both domains and of the mixed images; the model is used on the
    target alone. No label is read. The model is left in eval mode. Samples that fail, and those in `failed`, are
    replaced as in training (`data.on_error`). Raises FastudaError when memory runs out.
    """
    loader = EvaluationLoader(
        target,
        BATCH,
        recipe.runtime.loader_threads,
        device,
        labelled=False,
        limit=NUM_IMAGES,
        failures=Failures(target, recipe.data, failed),
    )

    def inputs() -> Iterator[Tensor]:
        for batch in loader:
            yield normalise(batch.images.to(device), passes.normalisation)

    with (
        memory_told("evaluation", recipe, device, BATCH),
        torch.autocast(device.type, passes.amp, enabled=passes.amp is not None),
    ):
        update_bn(inputs(), _Taught(model))
    model.eval()


class _Taught(nn.Module):
    """The model as teachers are run: whatever mode it is put into, only BatchNorm is in train mode in a pass."""

    def __init__(self, model: Segmenter) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        with teaching(self.model):
            logits: Tensor = self.model(images).logits
        return logits
