"""SegFormer, built from its recipe table."""

from __future__ import annotations

from fastuda.model.segformer.encoder import MixTransformer
from fastuda.model.segformer.shape import OUTPUT_STRIDE
from fastuda.model.segformer.table import Table
from fastuda.model.transformer.network import TransformerSegmenter


class SegFormer(TransformerSegmenter):
    """A Mix Transformer and a head; a position of the output every four pixels."""

    def __init__(self, settings: Table, num_classes: int) -> None:
        encoder = MixTransformer(settings.variant, stochastic_depth=settings.stochastic_depth)
        super().__init__(settings, encoder, num_classes, OUTPUT_STRIDE)
