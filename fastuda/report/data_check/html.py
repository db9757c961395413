"""A check's report as one HTML file that needs nothing else: to open in a browser, or to send."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable

from PIL import Image

from fastuda.data.checking.report import CheckReport, Comparison
from fastuda.printable import on_one_line, printable

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: .5rem 0 1.5rem } td, th { border: 1px solid #ccc; padding: .25rem .6rem }
th { background: #f2f2f2; text-align: left } td.n { text-align: right } td { vertical-align: top }
.bad { color: #b00020 } .bar { background: #4a7; display: inline-block; height: .7em } .there { background: #47a }
img { max-width: 100% } code { overflow-wrap: anywhere }
"""


def check_html(
    report: CheckReport, gaps: Comparison | None, sheet: Image.Image | None, next_steps: Iterable[str]
) -> str:
    """The whole report as HTML; `sheet` is the picture of the most suspicious pairs."""
    parts = [
        f"<h1>{_escape(report.layout)} data, {report.split} split</h1><p><code>{_escape(report.root)}</code>: "
        f"{report.num_samples} samples, {report.num_sound} sound.",
        f" Not used: {_escape(str(report.left_out))}." if str(report.left_out) else "",
        "</p><ul>" + "".join(f"<li>{_escape(step)}</li>" for step in next_steps) + "</ul>",
    ]
    if report.problems:
        rows = [
            (f"{group.kind}: {group.count}" if place == 0 else "", report.short(problem.file), problem.detail)
            for group in report.faults()
            for place, problem in enumerate(group.examples)
        ]
        parts.append("<h2>Faults, ten of a kind</h2>" + _table(("fault", "file", "what is wrong"), rows))
    if report.suspicions:
        named = [
            (s.kind, s.detail, "\n".join(map(on_one_line, s.samples[: report.EXAMPLES]))) for s in report.suspicions
        ]
        parts.append(
            "<h2>No fault of a file, but look</h2>" + _table(("suspicion", "what looks wrong", "examples"), named)
        )
    if sheet is not None:
        parts.append("<h2>The most suspicious pairs</h2>" + _picture(sheet))
        why = [(on_one_line(suspect.name), "\n".join(suspect.why)) for suspect in report.suspects]
        parts.append(_table(("row by row", "why"), why))
    if report.pixels:
        parts.append("<h2>Classes</h2>" + _classes(report, gaps))
    if gaps is not None and gaps.note:
        parts.append(f"<p>{_escape(gaps.note)}</p>")
    sizes = [(size, f"{count:,}") for size, count in report.sizes.items()]
    parts.append("<h2>Sizes</h2>" + _table(("size", "images"), sizes))
    title = _escape(f"{report.layout} {report.split}: {report.root}")
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _classes(report: CheckReport, gaps: Comparison | None) -> str:
    shares = (
        gaps.shares if gaps is not None and gaps.shares else {name: (s, None) for name, s in report.shares().items()}
    )
    rows = []
    for name, (here, there) in shares.items():
        cells = [_escape(name), f"{report.pixels[name]:,}", _share(here, "bar")]
        if there is not None:
            cells += [_share(there, "bar there"), f"{100 * (there - here):+.2f}"]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    heads = ["class", "pixels", "share"]
    if gaps is not None and gaps.shares:
        heads += ["share in the other", "gap, points"]
    ignored = f"<p>{report.ignored_pixels:,} pixels are ignored.</p>"
    return "<table>" + _heads(heads) + "".join(rows) + "</table>" + ignored


def _share(share: float, style: str) -> str:
    if not share:
        return '<span class="bad">absent</span>'
    return f'<span class="{style}" style="width: {200 * share:.1f}px"></span> {100 * share:.2f} %'


def _table(heads: Iterable[str], rows: Iterable[tuple[str, ...]]) -> str:
    body = "".join(
        "<tr>" + "".join(f"<td>{_escape(cell).replace(chr(10), '<br>')}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table>{_heads(heads)}{body}</table>"


def _heads(heads: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<th>{_escape(head)}</th>" for head in heads) + "</tr>"


def _picture(sheet: Image.Image) -> str:
    buffer = io.BytesIO()
    sheet.save(buffer, "png")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<p><img alt="image, label, both" src="data:image/png;base64,{data}"></p>'


def _escape(text: str) -> str:
    return html.escape(printable(text))
