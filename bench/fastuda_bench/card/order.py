"""What a card is made for: recipe, device and amounts; and the header that says so in its file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastuda.errors import FastudaError
from fastuda_bench.results import Row, gpu, stamp

CARD = "card.json"
DEFAULT_MINUTES = 8.0
_SAME = ("device", "gpu", "commit", "recipe", "settings", "amounts", "torch", "triton")
"""Fields of the header, and versions, in which a second call must be as the first."""


@dataclass(frozen=True)
class Order:
    """One card, as it was asked for."""

    folder: Path
    """Absolute; holds card.json, a results file a part, and logs/."""
    recipe: str
    """A name or a file, as `--set` and the commands take it."""
    device: torch.device
    settings: tuple[str, ...] = ()
    """`--set` values."""
    source: Path | None = None
    target: Path | None = None
    minutes: float = DEFAULT_MINUTES
    skip: frozenset[str] = frozenset()
    """Parts to leave out this time, or groups of them (`step`)."""
    iterations: int | None = None
    repeats: int = 3
    images: int | None = None
    """For `evaluate`."""
    tests: str | None = None
    """Arguments for pytest in place of `tests`."""

    @property
    def patience(self) -> float:
        """Times the usual limit that each part gets: more minutes than the default are for slow machines."""
        return max(1.0, self.minutes / DEFAULT_MINUTES)

    def header(self) -> Row:
        """Device, versions, commit, date, recipe and settings."""
        amounts = {name: getattr(self, name) for name in ("iterations", "repeats", "images", "tests")}
        roots = {name: str(path) for name in ("source", "target") if (path := getattr(self, name)) is not None}
        return {
            "question": "card",
            "device": self.device.type,
            "recipe": Path(self.recipe).stem,
            "settings": sorted(self.settings),
            "amounts": amounts | roots,
            **gpu(self.device),
            **stamp(["torch", "triton", "nvidia-dali-cuda130", "numpy"]),
        }


def read_card(folder: Path, header: Row) -> dict[str, Any]:
    """The card that stands in `folder`, empty if there is none.

    Raises FastudaError when it was made of something else than `header` says, or cannot be read.
    """
    path = folder / CARD
    try:
        found = json.loads(path.read_text())
        before, now = ({**one, **one["versions"]} for one in (found, json.loads(json.dumps(header))))
        differing = [name for name in _SAME if now[name] != before[name]]
        found["parts"], found["date"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FastudaError(
            f"{path}: not a card of `fastuda bench card` ({error}); choose another folder: --out {_free(folder)}"
        ) from error
    if differing:
        said = "; ".join(f"{name} was {before[name]} and is {now[name]}" for name in differing)
        raise FastudaError(f"{path}: made of something else ({said}); choose another folder: --out {_free(folder)}")
    return dict(found)


def _free(folder: Path) -> Path:
    """A folder beside this one that is not there yet."""
    number = 2
    while (free := folder.with_name(f"{folder.name}-{number}")).exists():
        number += 1
    return free
