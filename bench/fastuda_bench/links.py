"""How long ranks take to exchange something: links with their sources, and the time of a collective, as a model.

The model is NCCL's own for its rings (`src/graph/tuning.cc`): a start, a latency a step, and the bytes of a step over
the link's bandwidth, by whichever of two protocols is quicker. Within a machine of 8 GPUs one ring goes over the
inner link; between machines each GPU exchanges its eighth with its peers, and the 8 share the machine's network link.
"""

from __future__ import annotations

from dataclasses import dataclass

MACHINE = 8
"""GPUs of a machine."""
_STARTS = (8.4e-6, 3.6e-6)
"""Seconds before the first step of a ring by the protocols Simple and LL: `baseLat` of NCCL's tuning.cc."""
_SHARES = (1.0, 0.25)
"""Of a link's bandwidth that each protocol has: LL sends a flag with every 4 bytes, and NCCL counts a quarter."""


@dataclass(frozen=True)
class Link:
    """What connects ranks."""

    name: str
    bandwidth: float
    """Bytes a second that a ring has each way."""
    latencies: tuple[float, float]
    """Seconds a step by the protocols Simple and LL: `hwLat` of NCCL's tuning.cc."""
    said: str
    """Where the bandwidth is from."""


NVLINK_4 = Link(
    "NVLink 4",
    370e9,
    (3.4e-6, 0.47e-6),
    "900 GB/s both ways together by the data sheet; a ring's 370 GB/s by NVIDIA (NVIDIA/nccl-tests#212)",
)
NVLINK_3 = Link(
    "NVLink 3",
    235e9,
    (3.4e-6, 0.47e-6),
    "600 GB/s both ways together by the data sheet; a ring's 235 GB/s at most by NCCL's tuning.cc",
)
PCIE_4 = Link(
    "PCIe 4.0 ×16",
    24e9,
    (5.7e-6, 1.0e-6),
    "twice the 12 GB/s that NCCL's topo.h counts for PCIe 3.0 ×16; one switch, nothing else on it",
)
ETHERNET_100 = Link(
    "100 Gb/s Ethernet", 12e9, (9.6e-6, 2.7e-6), "12 GB/s by NCCL's topo.h for 100 Gbit, one link a machine"
)
INFINIBAND_8 = Link(
    "8 × 400 Gb/s InfiniBand",
    384e9,
    (9.6e-6, 2.7e-6),
    "8 times four times what topo.h counts for 100 Gbit, a NIC a GPU",
)


def ring_bytes(num_bytes: float, ranks: int) -> float:
    """Bytes that each rank sends, and receives, in an all-reduce of `num_bytes` in a ring."""
    return 2 * (ranks - 1) / ranks * num_bytes


def ring_seconds(num_bytes: float, ranks: int, alpha: float, beta: float) -> float:
    """Of an all-reduce of `num_bytes` in a ring whose steps take `alpha` seconds, and `beta` more a byte."""
    return 2 * (ranks - 1) * alpha + ring_bytes(num_bytes, ranks) * beta


@dataclass(frozen=True)
class Cluster:
    """Machines of 8 GPUs, alike."""

    inside: Link
    between: Link

    def all_reduce(self, num_bytes: float, ranks: int, times: int = 1) -> float:
        """Seconds in which every rank has the sum of `num_bytes`, sent in so many parts one after another.

        Raises ValueError for ranks that are neither within a machine nor whole machines.
        """
        return self._seconds(num_bytes, ranks, times, rounds=2)

    def all_gather(self, num_bytes: float, ranks: int, times: int = 1) -> float:
        """Seconds in which every rank has `num_bytes` of each; else as `all_reduce`."""
        return self._seconds(num_bytes * ranks, ranks, times, rounds=1)

    def _seconds(self, num_bytes: float, ranks: int, times: int, rounds: int) -> float:
        """`num_bytes` are of the whole result; an all-reduce goes around the rings twice, an all-gather once."""
        if ranks == 1 or not times:
            return 0.0
        if ranks > MACHINE and ranks % MACHINE:
            raise ValueError(f"{ranks} ranks are neither within a machine of {MACHINE} nor whole machines")
        gpus, machines = min(ranks, MACHINE), max(1, ranks // MACHINE)
        of_protocols = []
        for place, (start, share) in enumerate(zip(_STARTS, _SHARES, strict=True)):
            steps = 0.0
            for link, members in ((self.inside, gpus), (self.between, machines)):
                moved = num_bytes / times / members / (share * link.bandwidth)
                steps += rounds * (members - 1) * (link.latencies[place] + moved)
            of_protocols.append(start + steps)
        return times * min(of_protocols)
