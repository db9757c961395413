"""What a card is held against: the targets, each met, missed by how much, or not measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastuda_bench.agreement import BASELINE
from fastuda_bench.results import Row, sound
from fastuda_bench.step_table import CAREFUL, fastest

LEVELS = {"good": (65.0, 1.63), "goal": (55.0, 1.38), "stretch": (45.0, 1.13)}
"""Milliseconds of `gta2cs` on an H200, and times the roofline on any GPU."""
LOADER_TIMES = 2.0
"""Times the step's need that a loader should give, so that training never waits for it."""
_GAINS = {BASELINE: 6.0, CAREFUL: 2.0}
_PEAK_GIB = 16.0
_WAITING_PERCENT = 2.0
_EVALUATION = (500, 20.0)
"""Images, seconds."""
_NO_GPU = "a target for a GPU"
_SIZES = ("views.", "train.batch_size", "model.", "method.", "classes.")
"""Settings that make a step of other work."""


@dataclass(frozen=True)
class Target:
    """One target and what became of it."""

    what: str
    wanted: str
    found: str | None
    met: bool | None
    """None: not measured."""
    said: str


def targets_of(header: Row, results: Mapping[str, list[Row]], tests: Mapping[str, Any] | None) -> list[Target]:
    """All targets, from the rows of `step`, `loader`, `train` and `evaluate`, and the tests' report."""
    return [
        *_speed(header, results.get("step", [])),
        _waiting(results.get("train", [])),
        _loader(results.get("loader", [])),
        _evaluation(results.get("evaluate", [])),
        _tests(tests),
    ]


def _speed(header: Row, rows: list[Row]) -> list[Target]:
    best = fastest(rows)
    why_not = _NO_GPU if header["device"] != "cuda" else "no rung counts" if best is None else None
    ms = None if best is None or why_not else float(best["ms"]["median"])
    own_sizes = header["recipe"] == "gta2cs" and not any(one.startswith(_SIZES) for one in header["settings"])
    elsewhere = None if own_sizes and "H200" in (header["gpu"] or "") else "a target for gta2cs on an H200"
    roofline = None if best is None else best.get("roofline_ms")
    found = []
    for level, (absolute, _) in LEVELS.items():
        found.append(
            _at_most(f"ms an iteration, {level}", None if elsewhere else ms, absolute, "ms", why_not or elsewhere)
        )
    for level, (_, times) in LEVELS.items():
        value = None if ms is None or roofline is None else ms / roofline
        found.append(_at_most(f"times the roofline, {level}", value, times, "×", why_not or "no roofline"))
    for rung, wanted in _GAINS.items():
        other = next((row for row in sound(rows) if row["rung"] == rung), None)
        value = None if ms is None or other is None else float(other["ms"]["median"]) / ms
        found.append(_at_least(f"times as fast as {rung}", value, wanted, "×", why_not or f"no row of {rung} counts"))
    peak = None if ms is None or best is None or best["peak_bytes"] is None else best["peak_bytes"] / 2**30
    found.append(_at_most("peak memory", peak, _PEAK_GIB, "GiB", why_not or "no figure"))
    return found


def _waiting(rows: list[Row]) -> Target:
    value = float(rows[0]["percent_waiting"]["median"]) if rows else None
    return _at_most("waiting for data", value, _WAITING_PERCENT, "%", "`train` has no row")


def _loader(rows: list[Row]) -> Target:
    times = [float(row["times_the_need"]) for row in rows if row["times_the_need"] is not None]
    reason = "no step to compare with" if rows else "`loader` has no row"
    return _at_least("loader, times the step's need", max(times, default=None), LOADER_TIMES, "×", reason)


def _evaluation(rows: list[Row]) -> Target:
    images, seconds = _EVALUATION
    of_them = next((row for row in rows if row["images"] == images), None)
    value = None if of_them is None else float(of_them["seconds"]["median"])
    reason = f"{rows[0]['images']} images were scored" if rows else "`evaluate` has no row"
    return _at_most(f"{images} images evaluated", value, seconds, "s", reason)


def _tests(report: Mapping[str, Any] | None) -> Target:
    what, wanted = "GPU tests", "all pass"
    if report is None:
        return Target(what, wanted, None, None, "not measured: no report")
    found = ", ".join(f"{report[kind]} {kind}" for kind in ("passed", "failed", "skipped"))
    if report["failed"]:
        return Target(what, wanted, found, False, f"missed by {report['failed']}")
    if not report["finished"]:
        return Target(what, wanted, found, None, "not measured: stopped before the end")
    if not report["passed"]:
        return Target(what, wanted, found, None, "not measured: none ran")
    return Target(what, wanted, found, True, "met")


def _at_most(what: str, value: float | None, limit: float, unit: str, why_not: str | None) -> Target:
    return _verdict(what, f"≤ {limit:g} {unit}", value, None if value is None else value - limit, unit, why_not)


def _at_least(what: str, value: float | None, limit: float, unit: str, why_not: str | None) -> Target:
    return _verdict(what, f"≥ {limit:g} {unit}", value, None if value is None else limit - value, unit, why_not)


def _verdict(
    what: str, wanted: str, value: float | None, missing: float | None, unit: str, why_not: str | None
) -> Target:
    """`missing` is how far the value is on the wrong side."""
    if value is None or missing is None:
        return Target(what, wanted, None, None, f"not measured: {why_not}")
    # Written so that NaN is not met.
    met = missing <= 0
    return Target(what, wanted, f"{value:.3g} {unit}", met, "met" if met else f"missed by {missing:.3g} {unit}")
