"""A check's report as a page of the terminal: faults by kind, what looks wrong, sizes, classes."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from fastuda.data.checking.report import CheckReport, Comparison
from fastuda.printable import on_one_line

_SIZES = 6


def check_page(report: CheckReport, gaps: Comparison | None = None) -> RenderableType:
    """The whole report; with `gaps` the classes of both domains beside one another."""
    parts: list[RenderableType] = []
    if report.problems:
        parts.append(_faults(report))
    if report.suspicions:
        parts.append(_suspicions(report))
    if report.sizes:
        parts.append(_sizes(report))
    if gaps is not None:
        parts.append(comparison_table(gaps))
    if report.pixels and report.num_sound and (gaps is None or not gaps.shares):
        parts.append(_classes(report))
    return Group(*parts)


def _faults(report: CheckReport) -> Table:
    table = Table("fault", "file", "what is wrong", title="Faults")
    for group in report.faults():
        for place, problem in enumerate(group.examples):
            kind = f"{group.kind}: {group.count}" if place == 0 else ""
            table.add_row(kind, escape(report.short(problem.file)), escape(problem.detail))
        if group.count > len(group.examples):
            table.add_row("", f"… and {group.count - len(group.examples)} more", "--report FILE.json lists all")
        table.add_section()
    return table


def _suspicions(report: CheckReport) -> Table:
    table = Table("suspicion", "what looks wrong", "examples", title="No fault of a file, but look")
    for suspicion in report.suspicions:
        examples = ", ".join(on_one_line(name) for name in suspicion.samples[: report.EXAMPLES])
        table.add_row(suspicion.kind, escape(suspicion.detail), escape(examples) or "–")
    return table


def _sizes(report: CheckReport) -> Table:
    table = Table("size", "images", title="Sizes")
    for size, count in list(report.sizes.items())[:_SIZES]:
        table.add_row(size, f"{count:,}")
    rest = list(report.sizes.values())[_SIZES:]
    if rest:
        table.add_row(f"{len(rest)} other sizes", f"{sum(rest):,}")
    return table


def _classes(report: CheckReport) -> Table:
    table = Table("class", "pixels", "share", title="Classes")
    for name, share in report.shares().items():
        pixels = report.pixels[name]
        table.add_row(escape(name), f"{pixels:,}", f"{100 * share:.2f} %" if pixels else "[red]absent[/red]")
    table.add_row("ignored", f"{report.ignored_pixels:,}", "")
    return table


def comparison_table(gaps: Comparison) -> Table:
    """Class shares of two data sets beside one another, and the gap; only-here and only-there named."""
    table = Table("class", "share", "share in the other", "gap, points", "ratio", title="Classes of both domains")
    for name, (here, there) in gaps.shares.items():
        ratio = f"× {gaps.share_ratios[name]:.2f}" if name in gaps.share_ratios else f"[red]{gaps.place(name)}[/red]"
        table.add_row(
            escape(name), f"{100 * here:.2f} %", f"{100 * there:.2f} %", f"{100 * (there - here):+.2f}", ratio
        )
    if gaps.note:
        table.caption = gaps.note
    return table
