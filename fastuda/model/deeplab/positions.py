"""How many positions the network's output has for an image: of too few BatchNorm has no statistics to take."""

from __future__ import annotations


def positions(size: tuple[int, int], pool_padding: int) -> int:
    """Positions of the low-resolution output for an image of `size` (width, height); 0 where there is no output."""
    width, height = (_side(length, pool_padding) for length in size)
    return width * height


def _side(length: int, pool_padding: int) -> int:
    """Along one side: the stem's stride, its pool (3 wide, stride 2, `ceil_mode`), layer2's stride; no other halves."""
    stem = (length + 1) // 2
    pooled = (stem + 2 * pool_padding - 2) // 2 + 1
    if 2 * (pooled - 1) >= stem + pool_padding:
        pooled -= 1
    return max(0, (pooled + 1) // 2)
