"""A card as people read it: how its parts went, the ladder, the operations, the targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fastuda_bench.card.conduct import Card
from fastuda_bench.step_table import table_of, verdict_of

_STYLES = {"ok": "green", "failed": "red", "time limit": "red", "interrupted": "red", "left out": "dim"}


def summary_of(card: Card, folder: Path) -> RenderableType:
    """The summary of a card, for a console."""
    content = card.content
    shown: list[RenderableType] = [parts_table(content, card.step)]
    if card.step:
        shown += [table_of(card.step), Text(verdict_of(card.step))]
    operations = folder / "profile" / "operations.txt"
    if operations.exists():
        shown.append(Text(operations.read_text()))
    shown.append(targets_table(content["targets"]))
    return Group(*shown)


def parts_table(content: dict[str, Any], step: list[dict[str, Any]]) -> Table:
    """How each part went, how long it took, and why it did not if it did not."""
    power = f" ({content['power_limit_w']:.0f} W)" if content["power_limit_w"] else ""
    title = (
        f"{content['gpu'] or content['cpu']}{power}, {content['recipe']}, commit {content['commit']}, {content['date']}"
    )
    table = Table(title=title, box=box.SIMPLE)
    for column in ("part", "state", "seconds", ""):
        table.add_column(column, justify="right" if column == "seconds" else "left", overflow="fold")
    ways = {f"step-{row['rung']}": f"{row['ms']['median']:.1f} ms, {row['way']}" for row in step if "ms" in row}
    for part in content["parts"]:
        rc = f", rc {part['rc']}" if part["rc"] else ""
        said = part["said"].splitlines()[-1] if part["said"] else ways.get(part["part"], "")
        state = Text(part["state"] + rc, _STYLES[part["state"]])
        table.add_row(part["part"], state, f"{part['seconds']:.0f}", Text(said))
    return table


def targets_table(targets: list[dict[str, Any]]) -> Table:
    """A line a target."""
    table = Table(title="targets", box=box.SIMPLE)
    for column in ("target", "wanted", "found", ""):
        table.add_column(column, justify="right" if column in ("wanted", "found") else "left")
    styles = {True: "green", False: "yellow", None: "dim"}
    for target in targets:
        said = Text(target["said"], styles[target["met"]])
        table.add_row(target["what"], target["wanted"], target["found"] or "–", said)
    return table
