"""The stages of EfficientNet-Lite, and what the variants scale of them; no torch, so that recipes can ask.

Table 1 of "EfficientNet" (Tan & Le, ICML 2019), as the Lite variants have it: no squeeze-and-excitation, ReLU6, and
stem, head and the depth of the first and the last stage unscaled.
"""

from __future__ import annotations

from math import ceil
from typing import Literal, NamedTuple

Variant = Literal["lite0", "lite1", "lite2", "lite3", "lite4"]
SCALES: dict[Variant, tuple[float, float]] = {
    "lite0": (1.0, 1.0),
    "lite1": (1.0, 1.1),
    "lite2": (1.1, 1.2),
    "lite3": (1.2, 1.4),
    "lite4": (1.4, 1.8),
}
"""Factors of width and depth."""
STEM_CHANNELS = 32
SKIP_STAGE = 1
"""Whose features lie at a stride of 4 pixels."""
AUXILIARY_STAGE = 4
"""The last at a stride of 16 pixels in the undilated network, as layer3 is in a ResNet."""
_CHANNELS_STEP = 8


class Stage(NamedTuple):
    """Blocks of one width; the first strides."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


_STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


def stages_of(variant: Variant) -> list[Stage]:
    """The stages of a variant, from the stem to the last."""
    width, depth = SCALES[variant]
    last = len(_STAGES) - 1
    return [
        stage._replace(
            repeats=stage.repeats if i in (0, last) else ceil(depth * stage.repeats), channels=_wide(stage, width)
        )
        for i, stage in enumerate(_STAGES)
    ]


def _wide(stage: Stage, width: float) -> int:
    """Channels in steps of eight, the nearest but never less than nine tenths of what the factor asks."""
    wanted = stage.channels * width
    channels = max(_CHANNELS_STEP, int(wanted + _CHANNELS_STEP / 2) // _CHANNELS_STEP * _CHANNELS_STEP)
    return channels + _CHANNELS_STEP if channels < 0.9 * wanted else channels
