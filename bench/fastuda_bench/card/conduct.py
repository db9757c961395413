"""A card made: its parts run one after another in the time there is, kept as they come, and summed up."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from fastuda.files.disk import make_folder
from fastuda_bench.card.order import CARD, Order, read_card
from fastuda_bench.card.parts import Part, parts_of
from fastuda_bench.card.process import run
from fastuda_bench.card.rungs import put_together, rows_of
from fastuda_bench.card.targets import targets_of
from fastuda_bench.card.tested import read_report
from fastuda_bench.ladder import RUNGS
from fastuda_bench.results import Row, doubt_of, read_json, write_json

_KEPT_SECONDS = 10.0
"""Of the whole, for the summary."""
_LEAST_SECONDS = 10.0
"""What a part needs to be begun at all."""
_SAID_LINES, _SAID_WIDTH = 6, 300
_QUESTIONS = ("kernels", "loader", "train", "evaluate", "cudnn")
OK, FAILED, LATE, LEFT_OUT, INTERRUPTED = "ok", "failed", "time limit", "left out", "interrupted"


@dataclass(frozen=True)
class Card:
    """What a folder holds when its parts have had their turn."""

    content: dict[str, Any]
    """As in card.json."""
    step: list[Row]
    interrupted: bool

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C; 0 if every part that ran succeeded and no row failed or disagrees, else 1."""
        if self.interrupted:
            return 130
        bad = any(part["state"] in (FAILED, LATE, INTERRUPTED) for part in self.content["parts"])
        return int(bad or bool(self.content["doubts"]))


def make_card(
    order: Order, report: Callable[[str], None] = lambda line: None, parts: Sequence[Part] | None = None
) -> Card:
    """Run the parts of a card that are not yet ok in its folder, each in a process of its own, and sum up.

    Nothing that a part does stops the others: it may fail, or hang and be ended at its limit. Ctrl-C ends the
    running one and leaves the summary of what there is. Raises FastudaError for a folder that holds the card of
    something else, UsageError for parts to skip that there are not.
    """
    ends = time.monotonic() + 60 * order.minutes - _KEPT_SECONDS
    header = order.header()
    content: dict[str, Any] = header | {"parts": []} | read_card(order.folder, header)
    make_folder(order.folder)
    parts = parts_of(order) if parts is None else parts
    interrupted = False
    with _TermAsInterrupt():
        try:
            for part in parts:
                before = next((one for one in content["parts"] if one["part"] == part.name), None)
                if before is not None and before["state"] == OK and part.result.exists():
                    report(f"{part.name}: kept")
                    continue
                record = _turn(part, order, ends - time.monotonic(), report)
                if before is None or record["state"] != LEFT_OUT:
                    _keep(order.folder, content, record, parts)
                interrupted = record["state"] == INTERRUPTED
                if interrupted:
                    break
        except KeyboardInterrupt:  # between two parts
            interrupted = True
    content = _summed_up(order.folder, content)
    return Card(content, put_together(order.folder, _rungs(content)), interrupted)


def _turn(part: Part, order: Order, left: float, report: Callable[[str], None]) -> Row:
    """One part's record: left out with the reason, or run and how it ended."""
    limit = min(part.limit, left)
    why_not = "--skip" if order.skip & {part.name, part.group} else part.why_not()
    why_not = why_not or ("no time" if limit < _LEAST_SECONDS else None)
    if why_not is not None:
        report(f"{part.name}: left out, {why_not}")
        return {"part": part.name, "state": LEFT_OUT, "seconds": 0.0, "rc": None, "said": why_not}
    log = order.folder / "logs" / f"{part.name}.log"
    report(f"{part.name}: at most {limit:.0f} s, {log}")
    part.result.unlink(missing_ok=True)
    make_folder(part.result.parent)
    began = time.monotonic()
    # Logs are read by people: wide tables, and lines at once.
    environment = {"COLUMNS": "160", "PYTHONUNBUFFERED": "1", **os.environ, **part.environment}
    try:
        ended = run(part.command(), log, limit, cwd=part.cwd, environment=environment)
    except KeyboardInterrupt:
        state, rc = INTERRUPTED, None
    else:
        state, rc = OK if ended.rc == 0 else FAILED, ended.rc
        state = state if ended.in_time else LATE
        if state == OK and not part.result.exists():
            state = FAILED
    said = "" if state == OK else _last_lines(log)
    if state == LATE:
        said = f"{said}\nended at its limit of {limit:.0f} s".strip()
    record = {"part": part.name, "state": state, "seconds": round(time.monotonic() - began, 1), "rc": rc, "said": said}
    report(f"{part.name}: {state}{'' if rc in (0, None) else f', rc {rc}'}, {record['seconds']} s")
    if said:
        report(said)
    return record


def _keep(folder: Path, content: dict[str, Any], record: Row, parts: Sequence[Part]) -> None:
    """Put a record in its place, and write what its part's result means for the files of the whole."""
    order = [part.name for part in parts]
    others = [one for one in content["parts"] if one["part"] != record["part"]]
    content["parts"] = sorted(
        [*others, record], key=lambda one: order.index(one["part"]) if one["part"] in order else len(order)
    )
    if record["part"] == "tests" and (found := read_report(folder / "tests.xml")) is not None:
        finished = record["state"] in (OK, FAILED)
        write_json(folder / "tests.json", found | {"finished": finished, "seconds": record["seconds"]})
    put_together(folder, _rungs(content))
    write_json(folder / CARD, content)


def _summed_up(folder: Path, content: dict[str, Any]) -> Row:
    """The content with the targets and the doubtful rows, written."""
    results = {name: rows_of(folder / f"{name}.json") for name in _QUESTIONS if _had_its_turn(content, name)}
    results["step"] = put_together(folder, _rungs(content))
    tests = read_json(folder / "tests.json") if _had_its_turn(content, "tests") else None
    doubts = [f"{_named(row)}: {doubt}" for rows in results.values() for row in rows if (doubt := doubt_of(row))]
    targets = [vars(target) for target in targets_of(content, results, tests)]
    content = content | {"doubts": doubts, "targets": targets}
    write_json(folder / CARD, content)
    return content


def _rungs(content: dict[str, Any]) -> list[str]:
    """The rungs that had their turn, in the ladder's order."""
    return [rung.name for rung in RUNGS if _had_its_turn(content, f"step-{rung.name}")]


def _had_its_turn(content: dict[str, Any], name: str) -> bool:
    """Whether a part was run for this card: another's file may lie in the folder."""
    return any(part["part"] == name and part["state"] != LEFT_OUT for part in content["parts"])


def _named(row: Row) -> str:
    words = (row["question"], row.get("rung"), row.get("operation"), row.get("size"), row.get("implementation"))
    return " ".join(word for word in words if word)


def _last_lines(log: Path) -> str:
    """The end of a log, for who does not want to open it."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(line[:_SAID_WIDTH] for line in [line for line in lines if line.strip()][-_SAID_LINES:])


class _TermAsInterrupt:
    """While entered, SIGTERM is what Ctrl-C is: no part outlives its card."""

    def __enter__(self) -> None:
        try:
            self._before: Any = signal.signal(signal.SIGTERM, signal.default_int_handler)
        except ValueError:  # not the main thread: whoever runs this handles signals
            self._before = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
