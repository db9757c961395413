"""DINOv2's Vision Transformer, of the library's embeddings and blocks."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastuda.model.dinov2.table import PATCH
from fastuda.model.library import library
from fastuda.model.transformer.vit import VisionTransformer
from fastuda.model.transformer.vit_shape import SHAPES, ViTVariant

_TRAINED_SIDE = 518
"""Pixels of the images whose patches have a position embedding each; of others they are interpolated."""
_NUM_REGISTERS = 4


class DinoV2Encoder(VisionTransformer):
    """Patches of 14 × 14 pixels; `stochastic_depth` is the same for every block, as the library has it."""

    def __init__(self, variant: ViTVariant, *, registers: bool = False, stochastic_depth: float = 0.0) -> None:
        shape = SHAPES[variant]
        super().__init__(shape, PATCH, 1 + _NUM_REGISTERS * registers)
        settings: dict[str, Any] = {
            "hidden_size": shape.width,
            "num_hidden_layers": shape.depth,
            "num_attention_heads": shape.heads,
            "patch_size": PATCH,
            "image_size": _TRAINED_SIDE,
            "drop_path_rate": stochastic_depth,
            "attn_implementation": "sdpa",
        }
        if registers:
            dino = library("transformers.models.dinov2_with_registers.modeling_dinov2_with_registers")
            config = dino.Dinov2WithRegistersConfig(**settings, num_register_tokens=_NUM_REGISTERS)
            model = dino.Dinov2WithRegistersModel(config)
        else:
            dino = library("transformers.models.dinov2.modeling_dinov2")
            model = dino.Dinov2Model(dino.Dinov2Config(**settings))
        model.embeddings.mask_token = None  # of its first training alone
        self.embeddings, self.layers, self.norm = model.embeddings, model.encoder.layer, model.layernorm

    def shared(self, images: Tensor) -> dict[str, Any]:
        return {}
