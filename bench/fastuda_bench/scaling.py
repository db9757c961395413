"""How fast a recipe trains on several GPUs, as a model: computing, exchanging, and what of it can hide.

Nothing of it is measured. An iteration computes for as long as the card's roofline, the shortest that it can, unless a
measured one is given; a slower iteration makes every efficiency better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from fastuda.recipe import Recipe
from fastuda_bench.exchange import Exchange, Gather
from fastuda_bench.limits import Limits
from fastuda_bench.links import (
    ETHERNET_100,
    INFINIBAND_8,
    NVLINK_3,
    NVLINK_4,
    PCIE_4,
    Cluster,
    ring_bytes,
    ring_seconds,
)
from fastuda_bench.results import Row
from fastuda_bench.step_table import fastest
from fastuda_bench.work import Counted, counted, iteration_work

RANKS = (2, 4, 8, 64)
"""64 are 8 machines of 8."""
_GPU = torch.device("cuda", 0)
_REACHED = (0.8, 0.9)
"""Shares of a data sheet's bf16 and memory rates that large products and copies reach: an assumption."""


@dataclass(frozen=True)
class Card:
    """A GPU and what it is usually connected by; rates of the data sheet, a second."""

    name: str
    flops: float
    """Dense products in bf16, sums in fp32."""
    bytes: float
    cluster: Cluster

    @property
    def limits(self) -> Limits:
        """What it reaches of them."""
        flops, moved = self.flops * _REACHED[0], self.bytes * _REACHED[1]
        return Limits(bytes=moved, matrix=flops, convolution=flops, exponentials=float("inf"))


CARDS = (
    Card("H200", 989e12, 4.8e12, Cluster(NVLINK_4, ETHERNET_100)),
    Card("H200", 989e12, 4.8e12, Cluster(NVLINK_4, INFINIBAND_8)),
    Card("H100", 989e12, 3.35e12, Cluster(NVLINK_4, ETHERNET_100)),
    Card("A100", 312e12, 2.039e12, Cluster(NVLINK_3, ETHERNET_100)),
    Card("RTX 3090", 71e12, 0.936e12, Cluster(PCIE_4, ETHERNET_100)),
)
"""H100 and H200 as SXM, A100 as SXM with 80 GB, RTX 3090 in PCIe slots."""

WAYS = {
    "fp32": "as it is",
    "bf16": '`gradients = "bf16"`',
    "overlap": "`overlap = true`",
    "in the pass": "sent while the last backward pass runs (not built)",
    "sync": "`sync_batch_norm = true`",
    "negatives": "`gather_negatives = true`",
}
"""How ranks work together, and what of `[distributed]` that is."""


def iteration_seconds(
    compute: float, num_bytes: float, ranks: int, alpha: float, beta: float, *, hidden: float = 0.0
) -> float:
    """An iteration that computes for `compute` seconds and all-reduces `num_bytes` in a ring of `ranks`.

    A step of the ring takes `alpha` seconds and `beta` more a byte; `hidden` seconds of the exchange go by while the
    rank computes.
    """
    return compute + max(0.0, ring_seconds(num_bytes, ranks, alpha, beta) - hidden)


@dataclass(frozen=True)
class Pace:
    """What an iteration of a rank takes on a card, alone."""

    card: Card
    compute: float
    """Seconds."""
    measured: bool = False

    def exposed(self, exchange: Exchange, way: str, ranks: int) -> float:
        """Seconds that an iteration of `way` takes on so many ranks beyond those that it computes alone."""
        cluster = self.card.cluster
        precision = "bf16" if way == "bf16" else "fp32"
        num_bytes, buckets = exchange.gradients(precision), exchange.buckets
        gradients = cluster.all_reduce(num_bytes, ranks, buckets)
        # Running statistics and losses, behind the gradients or with them.
        others = cluster.all_reduce(4 * exchange.statistics, ranks, 1 if exchange.statistics else 0)
        others += cluster.all_reduce(8 * 16, ranks)
        if way == "overlap":
            # The last pass's gradients are as many as both passes' together, and nothing is left to hide them.
            rest = self.compute * exchange.after_first
            first = gradients if len(exchange.backwards) > 1 else 0.0
            return gradients + max(0.0, first - rest) + others
        if way == "in the pass":
            # Its last bucket is complete when the pass is over.
            hideable = gradients * (1 - 1 / buckets)
            return gradients - min(hideable, self.compute * exchange.last) + others
        if way == "sync":
            return gradients + others + self._gathers(exchange.batch_norm, ranks)
        if way == "negatives":
            gathers = [one for contrasted in exchange.contrasted for one in contrasted.gathers]
            return gradients + others + self._gathers(gathers, ranks) + self.compared(exchange, ranks)
        return gradients + others

    def compared(self, exchange: Exchange, ranks: int) -> float:
        """Seconds that anchors take to be compared with the other ranks' rows, at the least."""
        limits, seconds = self.card.limits, 0.0
        for one in exchange.contrasted:
            flops, moved = one.flops(ranks) - one.flops(1), one.moved(ranks)
            seconds += max(flops / limits.matrix, moved / limits.bytes) if ranks > 1 else 0.0
        return seconds

    def efficiency(self, exchange: Exchange, way: str, ranks: int) -> float:
        """Images a second on so many ranks, as a share of those of so many single ones."""
        return self.compute / (self.compute + self.exposed(exchange, way, ranks))

    def _gathers(self, gathers: Sequence[Gather], ranks: int) -> float:
        """Forward, and backward where there is one; nothing hides them."""
        cluster = self.card.cluster
        seconds = sum(cluster.all_gather(one.num_bytes, ranks) for one in gathers)
        return seconds + sum(cluster.all_reduce(ranks * one.num_bytes, ranks) for one in gathers if one.differentiable)


def paces(recipe: Recipe, name: str, steps: Sequence[Row] = ()) -> list[Pace]:
    """Every card's; `steps`, rows of `fastuda bench step`, say it for theirs where they are of this recipe."""
    work = counted(recipe, _GPU)
    with sdpa_kernel(SDPBackend.MATH):  # whose products torch counts
        flops = iteration_work(recipe, _GPU).flops
    best = fastest([row for row in steps if row.get("recipe") == name])
    return [_pace(card, work, flops, best) for card in CARDS]


def _pace(card: Card, work: Counted, flops: float, best: Row | None) -> Pace:
    if best is not None and card.name in (best["gpu"] or ""):
        return Pace(card, float(best["ms"]["median"]) / 1000, measured=True)
    # Layers that are no convolutions have no place in the roofline, but are among the operations.
    return Pace(card, max(work.roofline_ms(card.limits) / 1000, flops / card.limits.flops))


def exchange_rows(exchange: Exchange) -> list[Row]:
    """A row a thing that is exchanged: its bytes, its collectives, and what a rank sends of it."""
    gathers = [one for contrasted in exchange.contrasted for one in contrasted.gathers]
    reduced = {
        "gradients, fp32": (exchange.gradients("fp32"), exchange.buckets),
        "gradients, bf16": (exchange.gradients("bf16"), exchange.buckets),
        "running statistics": (4 * exchange.statistics, 1 if exchange.statistics else 0),
    }
    rows = []
    for what, (num_bytes, collectives) in reduced.items():
        sent = {str(ranks): round(ring_bytes(num_bytes, ranks)) for ranks in RANKS}
        rows.append({"what": what, "bytes": num_bytes, "collectives": collectives, "sent": sent})
    for what, ones in (("`sync_batch_norm`", exchange.batch_norm), ("`gather_negatives`", gathers)):
        backward = [one for one in ones if one.differentiable]
        sent = {
            str(ranks): round(
                sum((ranks - 1) * one.num_bytes for one in ones)
                + sum(ring_bytes(ranks * one.num_bytes, ranks) for one in backward)
            )
            for ranks in RANKS
        }
        num_bytes = sum(one.num_bytes for one in ones)
        rows.append({"what": what, "bytes": num_bytes, "collectives": len(ones) + len(backward), "sent": sent})
    return [{"part": "exchange", "kind": "model", **row} for row in rows]


def efficiency_rows(exchange: Exchange, found: Sequence[Pace]) -> list[Row]:
    """A row a card and way: milliseconds exposed and efficiency, by the number of ranks."""
    return [
        {
            "part": "efficiency",
            "kind": "model",
            "card": pace.card.name,
            "inside": pace.card.cluster.inside.name,
            "between": pace.card.cluster.between.name,
            "compute_ms": round(1000 * pace.compute, 2),
            "compute": "measured" if pace.measured else "model",
            "way": way,
            "exposed_ms": {str(ranks): round(1000 * pace.exposed(exchange, way, ranks), 3) for ranks in RANKS},
            "efficiency": {str(ranks): round(pace.efficiency(exchange, way, ranks), 4) for ranks in RANKS},
        }
        for pace in found
        for way in WAYS
        if way != "negatives" or exchange.contrasted
    ]
