"""A sound weights file that is being spoilt, and what writes it."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from safetensors.torch import save
from torch import Tensor

from fastuda.model.digest import sealed


@dataclass
class Base:
    """The sound file, as bytes and as read, and the dice of a mutation."""

    data: bytes
    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    dice: random.Random
    said: list[str] = field(default_factory=list)

    def weight(self) -> str:
        """A key of a tensor with values to spoil."""
        return self.dice.choice([key for key, value in self.tensors.items() if value.is_floating_point()])

    def written(self) -> bytes:
        """Tensors and metadata as they are now, with a checksum that holds, half the time where there was none."""
        plain = {key: value for key, value in self.metadata.items() if key not in ("sha256", "sealed")}
        keeps = self.dice.random() < 0.5 or "format" in plain
        tensors = {key: value.contiguous() for key, value in self.tensors.items()}
        return save(tensors, sealed(tensors, plain) if keeps else plain)

    def pickled(self, content: object) -> bytes:
        """`content` as `torch.save` writes it, in the zip or the legacy form."""
        zipped = self.dice.random() < 0.6
        self.said.append("zip" if zipped else "legacy")
        return torch_bytes(content, zipped=zipped)


def torch_bytes(content: object, *, zipped: bool = True) -> bytes:
    """What `torch.save` writes of `content`."""
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


class Code:
    """Unpickling it would run a command."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch code-was-run",)
