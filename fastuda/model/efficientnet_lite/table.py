"""The recipe's table of EfficientNet-Lite."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fastuda.model.efficientnet_lite.shape import Variant
from fastuda.recipe.model import InputConvention, Model
from fastuda.recipe.section import Dilation

_SKIP_STRIDE = 4


class Table(Model):
    """The network: DeepLab-v2's classifier on an EfficientNet-Lite, which has a tenth of a ResNet's arithmetic."""

    set_by_weights: ClassVar[tuple[str, ...]] = ("input", "output_stride", "aspp", "auxiliary", "skip")

    kind: Literal["efficientnet-lite"] = "efficientnet-lite"
    """Which network: EfficientNet-Lite."""
    variant: Variant = "lite0"
    """How wide and deep it is."""
    output_stride: Literal[8, 16] = 16
    """Pixels from one position of the features to the next; beyond it convolutions dilate in place of striding."""
    aspp: Annotated[tuple[Dilation, ...], Field(min_length=1, max_length=16)] = (3, 6, 9, 12)
    """Dilations of the classifier's branches, in positions; at a stride of 8 twice as many see as far."""
    auxiliary: bool = True
    """A second classifier, on the stage before the last two (protocol row 16)."""
    skip: Annotated[int, Field(ge=0, le=256)] = 0
    """Channels of a path from the features at a stride of 4 pixels, whose own classifier's scores are added to the
    upsampled ones, so that the output lies at that stride; 0 for none."""
    batch_norm_momentum: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of a new batch in BatchNorm's running statistics; below the usual 0.1 they remember more batches."""
    input: InputConvention = "rgb-tf"
    """Input convention: of the published weights `rgb-tf`, RGB 0-255 minus 127, by 128 (protocol row 20)."""
    weights: str = "imagenet"
    """Backbone to start from: `imagenet` (of lite0 and lite2, out of packages of the extra `small`), a file, a URL, or
    `random`."""

    @property
    def has_auxiliary(self) -> bool:
        return self.auxiliary

    def positions(self, size: tuple[int, int]) -> int:
        stride = _SKIP_STRIDE if self.skip else self.output_stride
        return -(-size[0] // stride) * -(-size[1] // stride)
