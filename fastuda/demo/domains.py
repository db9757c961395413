"""The two drawn domains."""

from __future__ import annotations

from dataclasses import dataclass

from fastuda.demo import look, town
from fastuda.demo.look import Look
from fastuda.demo.town import Town


@dataclass(frozen=True)
class Domain:
    """One of the two drawn domains: how its streets are laid out, and how they look."""

    town: Town
    look: Look


SOURCE = Domain(town.SOURCE, look.SOURCE)
TARGET = Domain(town.TARGET, look.TARGET)
