"""The recipe's table of DeepLab-v2."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fastuda.model.deeplab.positions import positions
from fastuda.recipe.model import Model
from fastuda.recipe.section import Dilation


class Table(Model):
    """The network: DeepLab-v2 on a ResNet (protocol rows 16-20)."""

    set_by_weights: ClassVar[tuple[str, ...]] = ("input", "stride_on", "pool_padding", "aspp", "auxiliary")

    kind: Literal["deeplab-v2"] = "deeplab-v2"
    """Which network: DeepLab-v2."""
    depth: Literal[18, 50, 101] = 101
    """ResNet depth."""
    width: Annotated[float, Field(gt=0, le=2)] = 1.0
    """Width factor of every stage but the stem."""
    stride_on: Literal["1x1", "3x3"] = "1x1"
    """Which convolution of a bottleneck strides: caffe's first 1×1 or torchvision's 3×3."""
    pool_padding: Literal[0, 1] = 1
    """Padding of the stem's 3×3/2 max-pool, which uses `ceil_mode` (0 in pure Caffe networks)."""
    aspp: Annotated[tuple[Dilation, ...], Field(min_length=1, max_length=16)] = (6, 12, 18, 24)
    """Dilations of the classifier's branches; released weights need (6, 12) (protocol row 18)."""
    auxiliary: bool = True
    """A second classifier on layer3 (protocol row 16)."""
    batch_norm_momentum: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of a new batch in BatchNorm's running statistics; below the usual 0.1 they remember more batches."""
    weights: str = "imagenet"
    """Backbone to start from: `imagenet` (torchvision's, downloaded once), `open-nsfw` (Yahoo's half-width ResNet-50,
    for `depth = 50` and `width = 0.5`, out of a package of the extra `small`), a file, a URL, or `random`. The authors'
    own start is a ResNet-101 converted from Caffe, DeepLab_resnet_pretrained_init-f81d91e8.pth: give that file, as it
    is. torchvision's backbones were trained with the stride elsewhere, on the 3×3 (protocol row 17)."""
    convention: Literal["auto", "torchvision", "caffe"] = "auto"
    """For a weights file whose keys do not tell: whose stride and input convention it follows."""

    @property
    def has_auxiliary(self) -> bool:
        return self.auxiliary

    def scale(self) -> tuple[object, ...]:
        return (self.kind, self.depth, self.width)

    def positions(self, size: tuple[int, int]) -> int:
        return positions(size, self.pool_padding)
