"""Which heads there are; no torch, so that recipes can ask."""

from __future__ import annotations

from typing import Literal

HeadKind = Literal["mlp", "daformer", "linear"]
