"""What is counted of an iteration: kernel launches by kind, and the bytes that they read and write."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass
class Tally:
    """Launches by kind, and bytes; adds up."""

    products: int = 0
    """Convolutions and matrix products of a library; a convolution's backward is one for each gradient it makes."""
    fused: int = 0
    """Kernels that the compiler writes: elementwise operations and reductions, fused as its scheduler fuses them."""
    triton: int = 0
    """fastuda's kernels."""
    others: int = 0
    """All else: copies, concatenations, optimiser and average of many tensors, operations outside compiled code."""
    bytes: int = 0

    def add(self, other: Tally) -> None:
        """Count another's launches and bytes too."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)

    @property
    def launches(self) -> int:
        """Of all kinds."""
        return self.products + self.fused + self.triton + self.others
