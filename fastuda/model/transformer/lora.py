"""Low-rank updates of an encoder's attention in place of its own training (Hu et al., ICLR '22)."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from fastuda.model.library import library

_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
_BASE = ".base_layer."
_UPDATE = ".lora_"


def add_lora(encoder: nn.Module, rank: int, alpha: float) -> None:
    """Put updates of that rank, zero at first, beside each projection; everything else of the encoder is frozen."""
    peft = library("peft")
    settings = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(_PROJECTIONS), lora_dropout=0, bias="none")
    peft.inject_adapter_in_model(settings, encoder)


def beside_updates(key: str, wanted: Collection[str]) -> str:
    """The key that a projection's weight or bias has once updates lie beside it; any other stays as it is."""
    module, _, value = key.rpartition(".")
    moved = f"{module}{_BASE}{value}"
    return moved if key not in wanted and moved in wanted else key


def is_update(key: str) -> bool:
    """Whether it is a key of an update."""
    return _UPDATE in key
