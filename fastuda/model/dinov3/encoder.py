"""DINOv3's Vision Transformer, of the library's embeddings and blocks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fastuda.model.dinov3.table import PATCH
from fastuda.model.library import library
from fastuda.model.transformer.vit import VisionTransformer
from fastuda.model.transformer.vit_shape import SHAPES, ViTVariant

_NUM_REGISTERS = 4


class DinoV3Encoder(VisionTransformer):
    """Patches of 16 × 16 pixels, told where they lie by rotations of queries and keys.

    `stochastic_depth` is the same for every block, as the library has it. The random rescaling of places in its first
    training is left out, so that equal images have equal answers.
    """

    frequencies: Tensor
    """float [width / heads / 4]: turns from the image's one edge to its middle, times 2π."""

    def __init__(self, variant: ViTVariant, *, stochastic_depth: float = 0.0) -> None:
        shape = SHAPES[variant]
        super().__init__(shape, PATCH, 1 + _NUM_REGISTERS)
        dino = library("transformers.models.dinov3_vit.modeling_dinov3_vit")
        config = dino.DINOv3ViTConfig(
            hidden_size=shape.width,
            intermediate_size=4 * shape.width,
            num_hidden_layers=shape.depth,
            num_attention_heads=shape.heads,
            patch_size=PATCH,
            num_register_tokens=_NUM_REGISTERS,
            drop_path_rate=stochastic_depth,
            attn_implementation="sdpa",
        )
        model = dino.DINOv3ViTModel(config)
        model.embeddings.mask_token = None  # of its first training alone
        self.embeddings, self.layers, self.norm = model.embeddings, model.model.layer, model.norm
        self.register_buffer("frequencies", model.rope_embeddings.inv_freq, persistent=False)

    def shared(self, images: Tensor) -> dict[str, Any]:
        """Cosine and sine, [H'·W', width / heads] each, of every patch's rotations.

        The library's own keeps the places of the sizes that it saw, which tensors without memory would spoil.
        """
        sides = [torch.arange(side // PATCH, device=images.device) for side in images.shape[2:]]
        places = [(2 * side.to(self.frequencies.dtype) + 1) / len(side) - 1 for side in sides]
        grid = torch.stack(torch.meshgrid(*places, indexing="ij"), dim=-1).flatten(0, 1)
        angles = (2 * math.pi * grid[:, :, None] * self.frequencies).flatten(1).tile(2)
        return {"position_embeddings": (angles.cos().to(images.dtype), angles.sin().to(images.dtype))}
