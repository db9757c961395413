"""DINOv2, built from its recipe table."""

from __future__ import annotations

from fastuda.model.dinov2.encoder import DinoV2Encoder
from fastuda.model.dinov2.table import PATCH, Table
from fastuda.model.transformer.network import TransformerSegmenter


class DinoV2(TransformerSegmenter):
    """DINOv2's encoder and a head; a position of the output a patch."""

    def __init__(self, settings: Table, num_classes: int) -> None:
        encoder = DinoV2Encoder(
            settings.variant, registers=settings.registers, stochastic_depth=settings.stochastic_depth
        )
        super().__init__(settings, encoder, num_classes, PATCH)
