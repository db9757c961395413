"""The recipe's table of SegFormer."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fastuda.model.segformer.shape import OUTPUT_STRIDE, REDUCTIONS, Variant
from fastuda.model.transformer.settings import TransformerTable


class Table(TransformerTable):
    """The network: a Mix Transformer, whose maps lie at strides of 4, 8, 16 and 32 pixels, and a head on them."""

    stride: ClassVar[int] = OUTPUT_STRIDE

    kind: Literal["segformer"] = "segformer"
    """Which network: SegFormer."""
    variant: Variant = "mit-b5"
    """How wide and deep the encoder is; b5 is DAFormer's, HRDA's and MIC's."""
    stochastic_depth: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """How often the last block is left out for a sample, in training; earlier ones less, in equal steps from 0."""
    weights: str = "imagenet"
    """What to start from: `imagenet` (nvidia/mit-b0 to nvidia/mit-b5 on Hugging Face's hub; NVIDIA's licence, for
    research alone), `hub:ORG/NAME` for another, a file or a folder of such or of fastuda's, NVlabs' own mit_b5.pth, a
    checkpoint of DAFormer, HRDA or MIC, a URL, or `random`."""

    def encoder_positions(self, size: tuple[int, int]) -> int:
        width, height = (-(-side // OUTPUT_STRIDE) for side in size)
        # The first stage's keys come from squares of 8 × 8 positions, and there has to be one.
        return width * height if min(width, height) >= REDUCTIONS[0] else 0
