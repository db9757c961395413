"""Tables of studies and of boundary evaluations for the project's pages."""

from __future__ import annotations

from typing import Any

from fastuda.study.spread import plus_minus
from fastuda_bench.markdown import number, table


def study(content: dict[str, Any]) -> str:
    """A row a line: last and best mIoU over seeds, the gain over the first row, the paper's number if any row has one.

    Where gains over a control were taken, these too, and what they tell, and how much of the oracle's the method wins.
    """
    first = content["rows"][0]["name"]
    has_control = any(row.get("gain_over_control") for row in content["rows"])
    has_gain = not (has_control and first == content["control"])  # it would say the same again
    has_paper = any(row["paper"] is not None for row in content["rows"])
    lines = []
    for row in content["rows"]:
        paper = (number(row["paper"]),) if has_paper else ()
        if row["last"] is None:
            empty = [""] * (has_gain + 2 * has_control + 1)
            lines.append((row["name"], "failed", *empty, *paper))
            continue
        gain = ("" if row["name"] == first else plus_minus(row["gain"], signed=True),) if has_gain else ()
        over = row.get("gain_over_control")
        told = (plus_minus(over, signed=True), over.get("verdict", "")) if over else ("", "")
        values = (plus_minus(row["best"]["miou"]), *paper)
        lines.append((row["name"], plus_minus(row["last"]["miou"]), *gain, *(told if has_control else ()), *values))
    control = (f"gain over {content['control']}", "verdict") if has_control else ()
    gains = (f"gain over {first}",) if has_gain else ()
    head = ("row", "last", *gains, *control, "best", *((f"paper ({content['pair']})",) if has_paper else ()))
    return table(head, lines) + "\n" + _note(content) + _share(content)


def _share(content: dict[str, Any]) -> str:
    """What part of the oracle's gain the method wins, as a sentence of its own; empty where none could be told."""
    share = content.get("share_of_oracle")
    if share is None:
        return ""
    return f"Of what *{share['oracle']}* gains over the control, *{share['row']}* wins {share['percent']:.0f} %.\n"


def study_in_a_line(content: dict[str, Any]) -> str:
    """Every row's mean mIoU of the last models, lowest first, as one sentence."""
    rows = [row for row in content["rows"] if row["last"] is not None]
    found = sorted(rows, key=lambda row: float(row["last"]["miou"]["mean"]))
    said = ", ".join(f"{row['name']} {row['last']['miou']['mean']:.1f}" for row in found)
    return f"Mean mIoU over seeds {', '.join(map(str, content['seeds']))}: {said}.\n"


def study_classes(content: dict[str, Any]) -> str:
    """A class a line: IoU of the last models, mean and deviation over seeds, a row of the study a column."""
    rows = [row for row in content["rows"] if row["last"] is not None]
    lines = [(name, *(plus_minus(row["last"]["iou"][name]) for row in rows)) for name in rows[0]["last"]["iou"]]
    return table(("class", *(row["name"] for row in rows)), lines)


def boundary(content: dict[str, Any]) -> str:
    """Scores near boundaries, and what thresholds keep (paper figure 2), of one model."""
    near, confidence = content["boundary"], content["confidence"]
    radii = list(near["trimap"])
    lines = [
        ("mIoU within", *(number(near["trimap"][radius]["miou"]) for radius in radii)),
        ("boundary F-score", *(number(near["f_score"][radius]["mean"]) for radius in radii)),
    ]
    scores = table(("", *(f"{radius} px" for radius in radii)), lines)
    shown = [i for i, tau in enumerate(confidence["thresholds"]) if tau in (0.0, 0.35, 0.55, 0.75, 0.95, 0.97)]
    columns = (
        confidence["overall"]["pixels"],
        confidence["overall"]["errors"],
        confidence["overall"]["error_rate"],
        confidence["boundary"]["errors"],
    )
    kept = [(f"{confidence['thresholds'][i]:g}", *(number(column[i]) for column in columns)) for i in shown]
    edge = f"{confidence['boundary_radius']} px of a boundary"
    head = ("τ", "pixels kept", "wrong pixels kept", "wrong among the kept", f"wrong pixels kept, within {edge}")
    note = (
        f"Percent; mIoU {number(content['full']['miou'])} in all. {number(confidence['boundary_pixels'])} % of the "
        f"pixels and {number(confidence['boundary_errors'])} % of the wrong ones lie within {edge}; expected "
        f"calibration error {number(confidence['ece'])} %. Seed {content['seed']}, {content['device']}, "
        f"{content['date'][:10]}.\n"
    )
    return f"{scores}\n{table(head, kept)}\n{note}"


def _note(content: dict[str, Any]) -> str:
    seeds = ", ".join(map(str, content["seeds"]))
    shown = sum(cell["seconds"] for row in content["rows"] for cell in row["cells"])
    minutes = content.get("seconds", shown) / 60  # results of before do not say
    settings = " ".join(f"`{setting}`" for setting in content["settings"] if _is_said(setting))
    base = content["base"].rpartition("/")[2]
    return (
        f"mIoU in percent, mean ± standard deviation over seeds {seeds}; the gain is taken seed by seed, `best` is "
        f"chosen on the evaluation set. `{base}`{' with ' + settings if settings else ''}; "
        f"{trained_on(content)}, {content['date'][:10]}, {minutes:.0f} minutes of training.\n"
    )


def trained_on(results: dict[str, Any]) -> str:
    """Device, precision where it is not float32, and torch of a run's results or a study's."""
    precision = results.get("precision") or "float32"  # results of before do not say
    named = "" if precision == "float32" else f", {precision}"
    return f"{results['device']}{named}, torch {results['versions']['torch']}"


def _is_said(setting: str) -> bool:
    """Whether a setting changes what is computed; others say how, or where something lies."""
    return not setting.startswith(("data.", "model.weights=", "runtime."))
