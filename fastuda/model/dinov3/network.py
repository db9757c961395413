"""DINOv3, built from its recipe table."""

from __future__ import annotations

from fastuda.model.dinov3.encoder import DinoV3Encoder
from fastuda.model.dinov3.table import PATCH, Table
from fastuda.model.transformer.network import TransformerSegmenter


class DinoV3(TransformerSegmenter):
    """DINOv3's encoder and a head; a position of the output a patch."""

    def __init__(self, settings: Table, num_classes: int) -> None:
        encoder = DinoV3Encoder(settings.variant, stochastic_depth=settings.stochastic_depth)
        super().__init__(settings, encoder, num_classes, PATCH)
