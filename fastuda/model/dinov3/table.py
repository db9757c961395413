"""The recipe's table of DINOv3."""

from __future__ import annotations

from typing import ClassVar, Literal

from fastuda.model.transformer.heads.kind import HeadKind
from fastuda.model.transformer.settings import TransformerTable
from fastuda.model.transformer.vit_shape import ViTVariant, no_whole_patches, patches

PATCH = 16


class Table(TransformerTable):
    """The network: DINOv3's Vision Transformer, whose maps all lie at a stride of 16 pixels, and a head on them."""

    stride: ClassVar[int] = PATCH

    kind: Literal["dinov3"] = "dinov3"
    """Which network: DINOv3."""
    variant: ViTVariant = "base"
    """How wide and deep the encoder is."""
    head: HeadKind = "linear"
    """What classifies: `linear`, a 1×1 convolution on the last map; `daformer` and `mlp` read four blocks' maps."""
    weights: str = "lvd1689m"
    """What to start from: `lvd1689m` (facebook/dinov3-vits16-pretrain-lvd1689m, -vitb16-… or -vitl16-… on Hugging
    Face's hub, for accounts that accepted its licence), `hub:ORG/NAME` for another, a file or a folder of such or of
    fastuda's, Facebook Research's own file, a URL, or `random`."""
    accept_licence: bool = False
    """Whether you accept the DINOv3 licence (https://ai.meta.com/resources/models-and-libraries/dinov3-license),
    without which no published weights are loaded; it binds what is trained from them too."""

    def encoder_positions(self, size: tuple[int, int]) -> int:
        return patches(size, PATCH)

    def encoder_refuses(self, size: tuple[int, int]) -> str | None:
        return no_whole_patches(size, PATCH)
