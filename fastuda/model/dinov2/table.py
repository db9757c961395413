"""The recipe's table of DINOv2."""

from __future__ import annotations

from typing import ClassVar, Literal

from fastuda.model.transformer.heads.kind import HeadKind
from fastuda.model.transformer.settings import TransformerTable
from fastuda.model.transformer.vit_shape import ViTVariant, no_whole_patches, patches

PATCH = 14


class Table(TransformerTable):
    """The network: DINOv2's Vision Transformer, whose maps all lie at a stride of 14 pixels, and a head on them."""

    stride: ClassVar[int] = PATCH

    kind: Literal["dinov2"] = "dinov2"
    """Which network: DINOv2."""
    variant: ViTVariant = "base"
    """How wide and deep the encoder is."""
    registers: bool = False
    """Four further tokens that keep artefacts out of the features (Darcet et al., ICLR '24)."""
    head: HeadKind = "linear"
    """What classifies: `linear`, a 1×1 convolution on the last map; `daformer` and `mlp` read four blocks' maps."""
    weights: str = "lvd142m"
    """What to start from: `lvd142m` (facebook/dinov2-small, -base, -large or -with-registers-… on Hugging Face's hub,
    Apache 2.0 licence), `hub:ORG/NAME` for another, a file or a folder of such or of fastuda's, Facebook Research's own
    dinov2_vitb14_pretrain.pth, a URL, or `random`."""

    def encoder_positions(self, size: tuple[int, int]) -> int:
        return patches(size, PATCH)

    def encoder_refuses(self, size: tuple[int, int]) -> str | None:
        return no_whole_patches(size, PATCH)
