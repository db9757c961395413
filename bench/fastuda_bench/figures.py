"""The figures of the project's pages, written between marks from results files, so that none is typed.

A page holds `<!-- figures: NAME -->` … `<!-- /figures -->`; what stands between is replaced by the
table that NAME makes of its file under `bench/results/`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastuda.errors import FastudaError
from fastuda_bench.determinism import bits_of
from fastuda_bench.fault_figures import faults
from fastuda_bench.kernel_resources import largest
from fastuda_bench.launches import COLUMNS, cells
from fastuda_bench.markdown import cell, number, table
from fastuda_bench.need_figures import recipe_needs
from fastuda_bench.rank_figures import several_ranks, shards_or_files
from fastuda_bench.results import NOT_COMPARED, doubt_of, run_of
from fastuda_bench.run_figures import runs_over_time
from fastuda_bench.scaling_figures import scaling_check, scaling_efficiency, scaling_exchange, scaling_feeding
from fastuda_bench.step_table import fastest, speedup, with_baselines
from fastuda_bench.study_figures import boundary, study, study_classes, study_in_a_line

PAGES = (
    "README.md",
    "bench/README.md",
    "bench/photographs.md",
    "docs/reliability.md",
    "docs/scaling.md",
    "docs/today.md",
    "fastuda/data/README.md",
    "kernels/README.md",
)
_MARKED = re.compile(r"(<!-- figures: (?P<name>[\w-]+) -->\n).*?(<!-- /figures -->)", re.DOTALL)
_GTA5_PAIRS = 24_966


def stale_pages(root: Path) -> list[str]:
    """Pages below the repository `root` whose figures are not those of today's results files."""
    return [page for page in PAGES if _current(root, page) != (root / page).read_text()]


def update_pages(root: Path) -> list[str]:
    """Rewrite the figures of every page that is stale; returns those pages."""
    stale = stale_pages(root)
    for page in stale:
        (root / page).write_text(_current(root, page))
    return stale


def _current(root: Path, page: str) -> str:
    def replaced(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in _MAKERS:
            raise FastudaError(f"{page}: no figures are called {name}; there are {', '.join(_MAKERS)}")
        file, make = _MAKERS[name]
        path = root / "bench" / "results" / file
        if name in _AWAITED and not path.exists():
            return match[1] + f"Not measured yet. On a GPU: `{_AWAITED[name]}`, `fastuda bench figures`.\n" + match[3]
        try:
            content = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise FastudaError(f"{path}: cannot be read ({error}); {page} makes its figures of it") from error
        return match[1] + make(content) + match[3]

    return _MARKED.sub(replaced, (root / page).read_text())


def _demo(results: dict[str, Any]) -> str:
    """Source-only beside adapted: the mean and every class of one run of the demo."""
    before, after = results["source_only"], results["adapted"]
    rows = [("**mIoU**", f"**{before['miou']:.1f}**", f"**{after['miou']:.1f}**", _gain(before["miou"], after["miou"]))]
    for name, value in before["iou"].items():
        other = after["iou"][name]
        rows.append((name, number(value), number(other), _gain(value, other)))
    minutes = sum(results["seconds"].values()) / 60
    note = (
        f"IoU in percent on the labelled target split, seed {results['seed']}, last iteration, {results['device']}; "
        f"trained in {minutes:.1f} minutes.\n"
    )
    return table(("class", "source only", "adapted", "gain"), rows) + "\n" + note


def _prepare(rows: list[dict[str, Any]]) -> str:
    """Speed, memory and disk of `prepare` a packed format."""
    lines = [
        (
            f"`{row['format']}`",
            f"{row['pairs_per_second']['median']:.1f}",
            f"{row['cpu_ms_a_pair']['median']:.0f}",
            f"{row['peak_rss_mib']['median']:.0f} MiB",
            f"{row['packed_bytes_a_pair'] / 1e6:.2f} MB",
            f"{row['packed_bytes_a_pair'] * _GTA5_PAIRS / 1e9:.0f} GB",
        )
        for row in rows
    ]
    head = ("`data.pack`", "pairs a second", "CPU ms a pair", "peak memory", "a pair on disk", f"{_GTA5_PAIRS:,} pairs")
    return table(head, lines) + "\n" + _machine(rows[0])


def _formats(rows: list[dict[str, Any]]) -> str:
    """Bytes, encode and decode cost, and error of each format that was tried."""
    lines = [
        (
            row["format"],
            f"{row['bytes_an_image'] / 1000:.0f}",
            f"{row['encode_ms']['median']:.1f}",
            f"{row['decode_ms']['median']:.1f}",
            str(row["max_error"]),
            f"{row['mean_error']:.1f}",
        )
        for row in rows
    ]
    return (
        table(("format", "kB", "encode ms", "decode ms", "max error", "mean error"), lines) + "\n" + _machine(rows[0])
    )


def _scores(content: dict[str, Any]) -> str:
    """A table of percentages kept as they were measured: a head, rows of a name and numbers, a note."""
    rows: list[tuple[str, ...]] = [(name, *(number(value) for value in values)) for name, *values in content["rows"]]
    return f"{table(tuple(content['head']), rows)}\n{content['note']}\n"


def _kernels(rows: list[dict[str, Any]]) -> str:
    """Milliseconds and memory of each operation by each implementation."""
    lines: list[tuple[str, ...]] = []
    for row in rows:
        name = f"`{row['operation']}`, {row['size']}" if row["implementation"] == "eager" else ""
        doubt = doubt_of(row)
        if doubt is not None:
            lines.append((name, row["implementation"], cell(doubt), "", "", ""))
            continue
        memory = row["peak_extra_bytes"]
        lines.append(
            (
                name,
                row["implementation"],
                *("–" if row[part] is None else _milliseconds(row[part]["median"]) for part in ("forward", "both")),
                _milliseconds(row["both"]["spread"]),
                "–" if memory is None else f"{memory / 1e6:.0f}",
            )
        )
    repeats = {row["both"]["repeats"] for row in rows if "both" in row}
    note = f"Median of {', '.join(map(str, repeats)) or 'none'} " + _where(rows[0])
    head = ("operation", "by", "forward ms", "with backward ms", "spread", "peak MB")
    return table(head, lines) + "\n" + note


def _resources(rows: list[dict[str, Any]]) -> str:
    """Registers, shared memory and spills of each kernel, a column a compute capability."""
    head, lines = largest(rows)
    compiler, date = rows[0]["versions"]["triton"], rows[0]["date"]
    note = f"Registers / shared KiB / spilled bytes; compiled by Triton {compiler}, {date}.\n"
    return table(tuple(head), [tuple(line) for line in lines]) + "\n" + note


def _step(rows: list[dict[str, Any]]) -> str:
    """The ladder: milliseconds, gains, share of the device's rate, memory."""
    best = fastest(rows)
    lines: list[tuple[str, ...]] = []
    for row, below, plain in with_baselines(rows):
        name, doubt = f"`{row['rung']}`: {row['adds']}", doubt_of(row)
        if doubt is not None:
            lines.append((name, cell(doubt), "", "", "", "", ""))
            continue
        ms, memory = _milliseconds(row["ms"]["median"]), row["peak_bytes"]
        lines.append(
            (
                name + (" (not compared)" if row.get("disagreement") == NOT_COMPARED else ""),
                f"**{ms}**" if row is best else ms,
                _milliseconds(row["ms"]["spread"]),
                *("–" if other is None else f"{speedup(row, other):.2f}" for other in (below, plain)),
                f"{100 * row['mfu']:.0f} %",
                "–" if memory is None else f"{memory / 1e6:,.0f}",
            )
        )
    first = rows[0]
    head = ("rung", "ms an iteration", "spread", "× the rung below", "× `eager-fp32`", "MFU", "peak MB")
    work = f"{first['work']['flops'] / 1e12:.3g} TFLOP an iteration"
    note = f"`{first['recipe']}`, batch {first['batch_size']}, {work}; "
    note += f"median of {best['ms']['repeats']} windows, " if best else "no rung counts, "
    return table(head, lines) + "\n" + note + _where(first)


def _launches(rows: list[dict[str, Any]]) -> str:
    """Estimated launches and bytes of an iteration, a rung a row."""
    first = rows[0]
    note = (
        f"`{first['recipe']}`, batch {first['batch_size']}; estimated, not measured; torch {first['versions']['torch']}"
    )
    lines = [(f"`{row['rung']}`: {row['adds']}", *cells(row)) for row in rows]
    return table(("rung", *COLUMNS), lines) + f"\n{note}, {first['date']}.\n"


def _loader(rows: list[dict[str, Any]]) -> str:
    """What the data path gives, a number of threads a row."""
    lines = [
        (
            str(row["threads"]),
            f"{row['images_per_second']['median']:.0f}",
            f"{row['iterations_per_second']['median']:.1f}",
            f"{row['cpu_ms_an_iteration']['median']:.1f}",
            f"{row['cores_used']:.1f}",
            "–" if row["times_the_need"] is None else f"{row['times_the_need']:.1f}",
        )
        for row in rows
    ]
    first = rows[0]
    head = ("DALI threads", "images a second", "iterations a second", "CPU ms each", "cores used", "× the step's need")
    note = f"`{first['recipe']}`, {first['data']} packed as {first['pack']}, batch {first['batch_size']}; median of "
    return table(head, lines) + "\n" + note + f"{first['images_per_second']['repeats']}, " + _where(first)


def _train(rows: list[dict[str, Any]]) -> str:
    """The real loop: pace, waiting, the recipe's own number of iterations at this pace."""
    lines = [
        (
            f"`{row['recipe']}`, {row['data']}, {row['way']}",
            _milliseconds(row["ms"]["median"]),
            _milliseconds(row["ms"]["spread"]),
            f"{row['percent_waiting']['median']:.1f} %",
            run_of(row),
            "–" if row["paper_hours"] is None else f"{row['paper_hours']} h",
        )
        for row in rows
    ]
    head = ("training loop", "ms an iteration", "spread", "waiting for data", "the recipe's iterations", "paper")
    return table(head, lines) + f"\nMedian of {rows[0]['ms']['repeats']} windows, " + _where(rows[0])


def _evaluate(rows: list[dict[str, Any]]) -> str:
    """Seconds to score a model."""
    lines = [
        (
            f"`{row['recipe']}` at {row['size'][0]}×{row['size'][1]}, {row['images']} images of 2048×1024",
            _milliseconds(row["seconds"]["median"]),
            f"{row['images_per_second']['median']:.1f}",
            f"{row['percent_waiting']['median']:.1f} %",
        )
        for row in rows
    ]
    head = ("evaluation", "seconds", "images a second", "waiting for data")
    return table(head, lines) + f"\nMedian of {rows[0]['seconds']['repeats']}, " + _where(rows[0])


def _determinism(rows: list[dict[str, Any]]) -> str:
    """The same step without and with determinism."""
    (row,) = rows
    ratio = f"{row['ratio']['median']:.2f} ({row['ratio']['spread']:.2f})"
    lines = [
        (said, _milliseconds(row[name]["median"]), _milliseconds(row[name]["spread"]), times, bits_of(row, way))
        for way, (said, name, times) in enumerate(
            (("`false`", "ms_default", "1"), ("`true`", "ms_deterministic", ratio)),
        )
    ]
    head = ("`runtime.deterministic`", "ms an iteration", "spread", "× default (spread)", "same bits every time")
    note = f"`{row['recipe']}`, batch {row['batch_size']}, {row['precision']}; median of {row['ratio']['repeats']} "
    note += f"processes each way, {row['iterations']} iterations each, commit `{row['commit']}`, "
    return table(head, lines) + "\n" + note + f"load average {row['load_average']}, " + _where(row)


def _card(content: dict[str, Any]) -> str:
    """What became of each target, and of the parts that give no figures."""
    lines = [
        (target["what"], target["wanted"], target["found"] or "–", cell(target["said"]))
        for target in content["targets"]
    ]
    bad = [f"`{part['part']}` ({part['state']})" for part in content["parts"] if part["state"] != "ok"]
    said = f"Without figures: {', '.join(bad)}. " if bad else ""
    doubts = "".join(f"{cell(doubt)}. " for doubt in content["doubts"])
    settings = "".join(f" `{setting}`" for setting in content["settings"])
    note = f"{said}{doubts}`{content['recipe']}`{settings}, commit `{content['commit']}`, " + _where(content)
    return table(("target", "wanted", "found", "verdict"), lines) + "\n" + note


_MAKERS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "demo": ("demo.json", _demo),
    "prepare": ("prepare.json", _prepare),
    "streets2camvid-batch-norm": ("streets2camvid-batch-norm.json", _scores),
    "streets2camvid-calibration": ("streets2camvid-calibration.json", _scores),
    "streets2camvid-start": ("streets2camvid-start.json", runs_over_time),
    "streets2camvid-shares": ("streets2camvid-shares.json", _scores),
    "streets2camvid-target-statistics": ("streets2camvid-target-statistics.json", _scores),
    "streets2camvid-restart": ("streets2camvid-restart.json", _scores),
    "streets2camvid-suspects": ("streets2camvid-suspects.json", runs_over_time),
    "summary": ("summary.json", study),
    "summary-line": ("summary.json", study_in_a_line),
    "summary-classes": ("summary.json", study_classes),
    "backbone-rate-demo": ("backbone-rate-demo.json", study),
    "backbone-rate-streets2camvid": ("backbone-rate-streets2camvid.json", study),
    "streets2camvid-study": ("streets2camvid-study.json", study),
    "streets2camvid-study-line": ("streets2camvid-study.json", study_in_a_line),
    "streets2camvid-study-classes": ("streets2camvid-study.json", study_classes),
    "streets2camvid-today": ("streets2camvid-today.json", study),
    "streets2camvid-today-classes": ("streets2camvid-today.json", study_classes),
    "streets2camvid-boundary": ("streets2camvid-boundary.json", boundary),
    "faults": ("faults.json", faults),
    "formats": ("formats.json", _formats),
    "kernel-resources": ("kernel-resources.json", _resources),
    "kernels-cpu": ("kernels-cpu.json", _kernels),
    "launches": ("launches.json", _launches),
    "needs": ("needs.json", recipe_needs),
    "scaling-exchange": ("scaling.json", scaling_exchange),
    "scaling-efficiency": ("scaling.json", scaling_efficiency),
    "scaling-feeding": ("scaling.json", scaling_feeding),
    "scaling-check": ("scaling.json", scaling_check),
    "card": ("card/card.json", _card),
    "kernels": ("card/kernels.json", _kernels),
    "loader": ("card/loader.json", _loader),
    "loader-cpu": ("loader-cpu.json", _loader),
    "step": ("card/step.json", _step),
    "step-cpu": ("step-cpu.json", _step),
    "train": ("card/train.json", _train),
    "evaluate": ("card/evaluate.json", _evaluate),
    "train-cpu": ("train-cpu.json", _train),
    "ranks": ("ranks.json", several_ranks),
    "ranks-cpu": ("ranks-cpu.json", several_ranks),
    "shards": ("shards.json", shards_or_files),
    "determinism": ("determinism.json", _determinism),
    "determinism-cpu": ("determinism-cpu.json", _determinism),
}
_CARD = "fastuda bench card --out bench/results/card"
_AWAITED = dict.fromkeys(("card", "step", "kernels", "loader", "train", "evaluate"), _CARD) | {
    "determinism": "fastuda bench determinism --json bench/results/determinism.json",
    "ranks": "fastuda bench ranks gta2cs --ranks 2 --json bench/results/ranks.json",
}
"""Figures of a GPU, whose files may not be there yet, and which then say by which command they come."""


def _where(row: dict[str, Any]) -> str:
    """The end of a note: device, power limit, versions, commit, date."""
    cores = "one core" if row["cores"] == 1 else f"{row['cores']} cores"
    device = row["gpu"] or f"{cores} of an {row['cpu']}"
    power = f" ({row['power_limit_w']:.0f} W)" if row["power_limit_w"] is not None else ""
    return f"on {device}{power}, torch {row['versions']['torch']}, {row['date']}.\n"


def _machine(row: dict[str, Any]) -> str:
    key = "pairs_per_second" if "pairs_per_second" in row else "decode_ms"
    return f"Median of {row[key]['repeats']} on {row['cores']} cores of an {row['cpu']}, {row['date']}.\n"


def _milliseconds(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}"


def _gain(before: float | None, after: float | None) -> str:
    return "" if before is None or after is None else f"{after - before:+.1f}"
