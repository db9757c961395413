"""The strong view's colours as DALI expressions: brightness-contrast, an OpenCV-style HSV shift, grey.

DALI's own `hsv` and `color_twist` turn and scale colours linearly; the released code shifts hue,
saturation and value additively in OpenCV's HSV, so that is what is spelled out here (protocol row 6).
"""

from __future__ import annotations

from typing import Any

from nvidia.dali import fn, math, types

from fastuda.data.loading.sampling import COLOUR_FIELDS

Node = Any  # a DALI DataNode: untyped outside this file


def jitter_colours(image: Node, parameters: Node) -> Node:
    """uint8 RGB [H, W, 3] with `parameters` float32 [6] in the order of COLOUR_FIELDS → uint8 [H, W, 3].

    `parameters` must live where the image lives. NO_COLOUR changes nothing.
    """
    contrast, brightness, hue, saturation, value, grey = (parameters[i : i + 1] for i in range(len(COLOUR_FIELDS)))
    levels = math.clamp(image * contrast + brightness, 0.0, 255.0)
    red, green, blue = _shift_hsv(levels[:, :, 0:1], levels[:, :, 1:2], levels[:, :, 2:3], hue, saturation, value)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    channels = [channel + grey * (luma - channel) for channel in (red, green, blue)]
    return fn.cast(fn.cat(*channels, axis=2), dtype=types.UINT8)


def _shift_hsv(red: Node, green: Node, blue: Node, hue: Node, saturation: Node, value: Node) -> tuple[Node, Node, Node]:
    """Add to hue (180 a turn, cyclic), saturation and value (0-255, clipped); channels are 0-255 floats."""
    highest = math.max(math.max(red, green), blue)
    chroma = highest - math.min(math.min(red, green), blue)
    safe_chroma = chroma + _flag(chroma == 0.0)
    is_red = _flag(highest == red)
    is_green = _flag(highest == green) * (1.0 - is_red)
    is_blue = 1.0 - is_red - is_green
    sextant = (
        is_red * ((green - blue) / safe_chroma)
        + is_green * ((blue - red) / safe_chroma + 2.0)
        + is_blue * ((red - green) / safe_chroma + 4.0)
    )
    turned = sextant + hue / 30.0
    saturated = math.clamp(chroma / (highest + _flag(highest == 0.0)) + saturation / 255.0, 0.0, 1.0)
    bright = math.clamp(highest + value, 0.0, 255.0)
    return (
        _channel(turned, saturated, bright, 5.0),
        _channel(turned, saturated, bright, 3.0),
        _channel(turned, saturated, bright, 1.0),
    )


def _channel(sextant: Node, saturation: Node, value: Node, offset: float) -> Node:
    """One channel of HSV → RGB: value · (1 − saturation · clamp(min(k, 4 − k), 0, 1)), k = (offset + sextant) mod 6."""
    shifted = sextant + offset
    k = shifted - 6.0 * math.floor(shifted / 6.0)
    return value - value * saturation * math.clamp(math.min(k, 4.0 - k), 0.0, 1.0)


def _flag(condition: Node) -> Node:
    return fn.cast(condition, dtype=types.FLOAT)
