"""The Mix Transformer, of the library's stages.

Dimensions: B images, H W pixels.
"""

from __future__ import annotations

import re

from torch import Tensor, nn

from fastuda.model.library import library
from fastuda.model.segformer.shape import HEADS, REDUCTIONS, SHAPES, Variant
from fastuda.model.transformer.encoder import Encoder

_EPS = 1e-6
_NAME = re.compile(r"stages\.(\d+)\.(?:blocks\.(\d+)|(\w+))")


class MixTransformer(Encoder):
    """Four stages, each an overlapping patch embedding, its blocks and a norm; float maps at strides 4, 8, 16, 32.

    `stochastic_depth` is the last block's; it grows from 0 at the first in equal steps.
    """

    def __init__(self, variant: Variant, *, stochastic_depth: float = 0.0) -> None:
        super().__init__()
        shape = SHAPES[variant]
        segformer = library("transformers.models.segformer.modeling_segformer")
        settings = segformer.SegformerConfig(
            hidden_sizes=list(shape.widths),
            depths=list(shape.depths),
            num_attention_heads=list(HEADS),
            sr_ratios=list(REDUCTIONS),
            drop_path_rate=stochastic_depth,
            attn_implementation="sdpa",
        )
        self.stages: nn.ModuleList = segformer.SegformerModel(settings).stages
        self.channels = shape.widths
        self.depths = shape.depths
        self.num_blocks = sum(shape.depths)
        for name, module in self.named_modules():
            # NVlabs' constant, with which all published weights were trained; the library has 1e-5.
            if isinstance(module, nn.LayerNorm) and not re.search("patch_embeddings|sequence_reduction", name):
                module.eps = _EPS

    def forward(self, images: Tensor, *, only_last: bool = False) -> list[Tensor]:
        """Maps of float [B, 3, H, W] normalised images, float [B, D_i, ⌈H / 4·2ⁱ⌉, ⌈W / 4·2ⁱ⌉] each."""
        x, maps = images, []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[-1:] if only_last else maps

    def depth_of(self, name: str) -> int:
        """A stage's embedding goes with its first block, but for the first stage's, and its norm with its last."""
        match = _NAME.match(name)
        assert match is not None, name
        stage, block, part = int(match[1]), match[2], match[3]
        before = sum(self.depths[:stage])
        if block is not None:
            return before + int(block) + 1
        if part == "patch_embeddings":
            return before + 1 if stage else 0
        return before + self.depths[stage]
