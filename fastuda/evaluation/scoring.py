"""A model evaluated on a packed, labelled split (protocol row 23)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fastuda.data.loading.evaluation_loader import EvaluationLoader
from fastuda.distributed.ranks import ALONE, Ranks
from fastuda.errors import FastudaError
from fastuda.memory.out_of_memory import memory_told
from fastuda.metrics import Scores
from fastuda.model.inference import evaluation_logits
from fastuda.model.passes import Passes
from fastuda.model.segmenter import Outputs, Segmenter
from fastuda.recipe import Recipe
from fastuda_kernels.pseudo_label import argmax_confusion

Progress = Callable[[int, int], None]
EVALUATION_BATCH = 4
"""Images that runs, `fastuda eval` and its benchmark put through the network at once."""


@torch.no_grad()
def scored(
    model: Segmenter,
    loader: EvaluationLoader,
    recipe: Recipe,
    passes: Passes,
    *,
    progress: Progress | None = None,
    on_image: Callable[[str, Outputs, Tensor], None] | None = None,
    ranks: Ranks = ALONE,
) -> dict[str, Scores]:
    """Scores by protocol, from one pass over the split.

    `full`: logits upsampled to each label's own size. `released`: the label resized (nearest) to the
    network's input size. `on_image(name, outputs, label [H, W])` sees every image,
    the outputs as `evaluation_logits` gives it, of one image.
    The model must be in eval mode; it is left as it is. With `ranks`, each of which has a share of the split in its
    loader and the same model, the scores are of all shares: whole numbers are summed. Raises FastudaError when no
    pixel counts and when memory runs out.
    """
    classes = recipe.classes.build()
    device = next(model.parameters()).device
    confusion = {
        protocol: torch.zeros(len(classes), len(classes), dtype=torch.int64, device=device)
        for protocol in ("full", "released")
    }
    done = 0
    with ranks.breaking_off(), memory_told("evaluation", recipe, device, loader.batch_size):
        for batch in loader:
            outputs = evaluation_logits(model, batch.images.to(device), recipe.eval, passes)
            input_size = batch.images.shape[1:3]
            for i, (name, label) in enumerate(zip(batch.names, batch.labels, strict=True)):
                own = outputs.main_head(slice(i, i + 1))
                confusion["full"] += argmax_confusion(own.logits, label[None], align_corners=own.align_corners)
                resized = F.interpolate(label[None, None].float(), size=input_size, mode="nearest-exact")[0].to(
                    torch.uint8
                )
                confusion["released"] += argmax_confusion(own.logits, resized, align_corners=own.align_corners)
                if on_image is not None:
                    on_image(name, own, label)
            done += len(batch.names)
            if progress is not None:
                progress(done, len(loader))
    ranks.sum_(*confusion.values())
    if not confusion["full"].any():
        raise FastudaError(
            f"{loader.folder}: no pixel of this evaluation split has a class of the recipe; check the label ids "
            "(`fastuda data check` counts the classes)"
        )
    return {
        protocol: Scores.of(matrix.cpu().numpy(), classes.names, protocol, recipe.eval.subsets)
        for protocol, matrix in confusion.items()
    }
