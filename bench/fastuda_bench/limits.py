"""What a device can do at most, measured in the same run: memory bandwidth, matrix products, exponentials."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from fastuda_bench.timing import measure

_COPY_BYTES = {"cuda": 2**29, "cpu": 2**27}
_PRODUCT_SIDE = {"cuda": 8192, "cpu": 2048}
_CONVOLUTION = {"cuda": (32, 512, 64), "cpu": (2, 256, 64)}
"""Images, channels and side of a 3×3 convolution."""
_EXPONENTIALS = {"cuda": 2**28, "cpu": 2**22}
_EXPONENTIALS_A_CLOCK = 16
"""Of a multiprocessor's special-function units, NVIDIA's GPUs since Volta."""


@dataclass(frozen=True)
class Work:
    """What an operation cannot do without: bytes moved, floating-point operations of products, exponentials."""

    bytes: float
    flops: float = 0.0
    exponentials: float = 0.0


@dataclass(frozen=True)
class Limits:
    """Rates of a device, each a second."""

    bytes: float
    matrix: float
    """Floating-point operations of a large matrix product."""
    convolution: float
    """Floating-point operations of a 3×3 convolution."""
    exponentials: float

    @property
    def flops(self) -> float:
        """The better of the two rates of products."""
        return max(self.matrix, self.convolution)

    def to_json(self) -> dict[str, float]:
        """All rates, `flops` too."""
        return {**vars(self), "flops": self.flops}

    @classmethod
    def of_json(cls, content: dict[str, float]) -> Limits:
        """What `to_json` wrote. Raises KeyError for anything else."""
        return cls(*(float(content[name]) for name in ("bytes", "matrix", "convolution", "exponentials")))

    def milliseconds(self, work: Work) -> float:
        """The shortest time in which the device can do `work`: its slowest part, if the others hide behind it."""
        seconds = (work.bytes / self.bytes, work.flops / self.flops, work.exponentials / self.exponentials)
        return 1000 * max(seconds)


def measured_limits(device: torch.device) -> Limits:
    """Copy bandwidth (read and write counted), products in bf16 on a GPU and fp32 on a CPU, exponentials in fp32.

    Data are random: on zeros or ones a GPU draws less power, clocks higher and reads too fast. A matrix product
    and a convolution are timed apart: some processors' libraries are far better at the one than at the other.
    On a GPU the exponentials are counted from multiprocessors and clock where torch tells the clock: a
    kernel that does nothing else would measure its memory.
    """
    kind = device.type
    source = torch.randint(0, 256, (_COPY_BYTES[kind],), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    side = _PRODUCT_SIDE[kind]
    dtype = torch.bfloat16 if kind == "cuda" else torch.float32
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    count, channels, length = _CONVOLUTION[kind]
    nhwc = torch.channels_last
    images = torch.randn(count, channels, length, length, device=device, dtype=dtype).to(memory_format=nhwc)
    filters = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype).to(memory_format=nhwc)
    values = torch.randn(_EXPONENTIALS[kind], device=device)
    powers = torch.empty_like(values)

    def rate(amount: float, function: object) -> float:
        times = measure(function, device, 3).milliseconds  # type: ignore[arg-type]
        return 1000 * amount / min(times)

    exponentials = rate(values.numel(), lambda: torch.exp(values, out=powers))
    if kind == "cuda":
        properties = torch.cuda.get_device_properties(device)
        kilohertz = getattr(properties, "clock_rate", None)
        if kilohertz:
            exponentials = properties.multi_processor_count * _EXPONENTIALS_A_CLOCK * kilohertz * 1e3
    return Limits(
        bytes=rate(2 * source.numel(), lambda: target.copy_(source)),
        matrix=rate(2 * side**3, lambda: left @ right),
        convolution=rate(18 * count * (channels * length) ** 2, lambda: F.conv2d(images, filters, padding=1)),
        exponentials=exponentials,
    )
