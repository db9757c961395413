"""What the recipe's tables of transformers have in common; no torch."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from fastuda.model.transformer.heads.kind import HeadKind
from fastuda.recipe.model import Model

MOST_CHANNELS = 4096


class TransformerTable(Model):
    """A transformer and its head."""

    set_by_weights: ClassVar[tuple[str, ...]] = ("input", "head", "head_channels", "lora", "lora_alpha")

    head: HeadKind = "mlp"
    """What classifies: `mlp`, SegFormer's, which fuses all maps by a 1×1 convolution; `daformer`, by dilated ones;
    `linear`, a 1×1 convolution on the last map."""
    head_channels: Annotated[int, Field(ge=1, le=MOST_CHANNELS)] = 256
    """Width of the heads `mlp` and `daformer`. SegFormer's own are 256 for mit-b0 and mit-b1, 768 above."""
    stochastic_depth: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """How often a block is left out for a sample, in training."""
    lora: Annotated[int, Field(ge=0, le=1024)] = 0
    """Rank of low-rank updates of the attention's projections (Hu et al., ICLR '22), which then train in place of the
    encoder, at `lr_backbone`; 0 trains the encoder itself."""
    lora_alpha: Annotated[float, Field(gt=0, le=65536)] = 16.0
    """Those updates are scaled by it, over their rank."""
