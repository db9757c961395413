"""What a person sees: lines in a log file, a line that changes on a terminal, and tables of results."""

from __future__ import annotations

import errno
import io
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import fastuda.report.display
from fastuda.data.checking.report import CheckReport, Comparison, Problem
from fastuda.data.checking.suspicion import Suspicion
from fastuda.metrics import Scores
from fastuda.report.data_check.page import check_page, comparison_table
from fastuda.report.display import Display
from fastuda.report.tables import protocol_table, score_table

LOSSES = {"source": 0.5, "mix": 1.25}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(fastuda.report.display.time, "monotonic", clock)
    return clock


@pytest.fixture
def log() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def display(log: io.StringIO) -> Display:
    """As in a log file or a CI job: no terminal, 80 columns."""
    return Display(Console(file=log, width=80))


def lines(log: io.StringIO) -> list[str]:
    return [line for line in log.getvalue().splitlines() if line]


def test_a_line_tells_iteration_pace_losses_score_time_left_and_the_papers_hours(
    display: Display, log: io.StringIO
) -> None:
    with display.stage("adaptation", 0, 1000, as_paper=True) as stage:
        stage.advance(100, LOSSES, 4.0, 43.21)
    assert lines(log) == [
        "Adaptation: iterations 1 to 1000",
        "adaptation 100/1000 · 4.00 it/s · source 0.500 mix 1.250 · mIoU 43.21 · 0:03:45 left · "
        "at this pace 250k iterations take 17.4 h (paper: 63 h)",
    ]


def test_other_work_is_not_compared_with_the_papers_hours(display: Display, log: io.StringIO) -> None:
    with display.stage("adaptation", 0, 1000) as stage:
        stage.advance(100, LOSSES, 4.0, None)
    assert lines(log)[1] == "adaptation 100/1000 · 4.00 it/s · source 0.500 mix 1.250 · 0:03:45 left"


def test_before_the_first_evaluation_no_score_is_shown(display: Display, log: io.StringIO) -> None:
    with display.stage("warm-up", 0, 10) as stage:
        stage.advance(5, LOSSES, 4.0, None)
    assert "mIoU" not in log.getvalue()


def test_hours_left_are_hours(display: Display, log: io.StringIO) -> None:
    with display.stage("adaptation", 0, 250_000, as_paper=True) as stage:
        stage.advance(50, {}, 1.1023, None)
    assert "62:59:" in log.getvalue()
    assert "take 63.0 h" in log.getvalue()


def test_a_resumed_stage_says_where_it_goes_on(display: Display, log: io.StringIO) -> None:
    with display.stage("adaptation", 600, 1000):
        pass
    assert lines(log) == ["Adaptation: iterations 601 to 1000"]


def test_a_log_file_gets_a_line_every_ten_seconds_and_the_last_one(
    display: Display, log: io.StringIO, clock: Clock
) -> None:
    with display.stage("adaptation", 0, 100) as stage:
        for done in range(1, 101):
            clock.now += 0.3
            stage.advance(done, LOSSES, 4.0, None)
    shown = [int(line.split()[1].split("/")[0]) for line in lines(log)[1:]]
    assert shown[0] == 1
    assert shown[-1] == 100
    assert len(shown) == 4
    assert all(0.3 * (b - a) >= 10 for a, b in itertools.pairwise(shown[:-1]))


def test_a_log_file_gets_no_control_characters(display: Display, log: io.StringIO) -> None:
    with display.stage("adaptation", 0, 2) as stage:
        stage.advance(1, LOSSES, 4.0, None)
        bar = display.task("Evaluating")
        bar(1, 2)
        bar(2, 2)
        stage.advance(2, LOSSES, 4.0, None)
    assert all(character.isprintable() or character == "\n" for character in log.getvalue())


def test_a_task_in_a_log_file_is_one_line_when_it_is_done(display: Display, log: io.StringIO) -> None:
    bar = display.task("Packing source images")
    for done in range(1, 6):
        bar(done, 5)
        assert bool(log.getvalue()) == (done == 5)
    assert lines(log) == ["Packing source images: 5"]


def test_an_evaluation_tells_its_iteration_score_and_protocol(display: Display, log: io.StringIO) -> None:
    display.evaluated("adaptation", 500, Scores.of(np.array([[3, 1], [0, 4]]), ("a", "b"), "full"))
    assert lines(log) == ["adaptation 500: mIoU 77.50 (full protocol)"]


def test_on_a_terminal_every_step_is_shown_and_a_bar_beside_it(log: io.StringIO) -> None:
    display = Display(Console(file=log, width=200, force_terminal=True))
    with display.stage("adaptation", 0, 4) as stage:
        stage.advance(1, LOSSES, 4.0, None)
        stage.advance(2, LOSSES, 4.0, None)
        bar = display.task("Evaluating")
        bar(1, 2)
        bar(2, 2)
        stage.advance(3, LOSSES, 4.0, 1.0)
    for part in ("adaptation 1/4", "adaptation 2/4", "Evaluating", "adaptation 3/4"):
        assert part in log.getvalue()


def test_a_bar_on_a_terminal_counts_to_the_end_and_can_begin_again(log: io.StringIO) -> None:
    bar = Display(Console(file=log, width=100, force_terminal=True)).task("Packing")
    for total in (2, 3):
        for done in range(1, total + 1):
            bar(done, total)
        assert f"{total}/{total}" in log.getvalue()


class Refusing(io.StringIO):
    """A file on a disk that is full until it has room, or a pipe that nobody reads."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error: OSError | None = error

    def write(self, text: str) -> int:
        if self.error is not None:
            raise self.error
        return super().write(text)

    def flush(self) -> None:
        self.write("")


REFUSALS = {"No space left on device": errno.ENOSPC, "Broken pipe": errno.EPIPE, "Input/output error": errno.EIO}


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("why", REFUSALS)
def test_what_a_runs_display_cannot_write_is_lost_and_told_once(
    why: str, terminal: bool, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    file = Refusing(OSError(REFUSALS[why], why))
    console = Console(file=file, width=100, force_terminal=terminal)
    display = Display(console).unfailing()
    assert display.unfailing() is display
    display.heading("first")
    with display.stage("adaptation", 0, 2) as stage:
        stage.advance(1, LOSSES, 4.0, None)
        bar = display.task("Packing")
        for done in (1, 2, 3):
            bar(done, 3)
        clock.now += 20
        stage.advance(2, LOSSES, 4.0, None)
    display.evaluated("adaptation", 2, Scores.of(np.array([[3, 1], [0, 4]]), ("a", "b"), "full"))
    display.note("the end")
    assert [record.getMessage() for record in caplog.records] == [
        f"the run's progress cannot be shown ({why}); it goes on, and log.jsonl in its folder tells of it"
    ]
    file.error = None
    display.note("room again")
    assert "room again" in file.getvalue()


def test_who_else_writes_to_the_console_of_a_run_is_told_of_failures() -> None:
    console = Console(file=Refusing(OSError(errno.ENOSPC, "No space left on device")), width=100)
    Display(console).unfailing().note("lost")
    with pytest.raises(OSError, match="No space left"):
        console.print("a table that somebody asked for")


def stage_results(iou: dict[str, float | None], last: float, best: float) -> dict[str, Any]:
    subsets = {"13": last + 5}
    return {
        "protocol": "full",
        "iou": iou,
        "last": {"miou": last, "subsets": subsets},
        "best": {"miou": best, "subsets": subsets},
    }


SOURCE_ONLY = stage_results({"road": 70.0, "sky": 50.25, "train": None}, 60.1, 61.0)
ADAPTED = stage_results({"road": 90.5, "sky": 40.0, "train": None}, 65.25, 66.5)


def rows(text: str) -> dict[str, list[str]]:
    """Cells of a drawn table by the first of each row."""
    drawn = [line.strip() for line in text.replace("┃", "│").splitlines() if "│" in line]
    cells = [[cell.strip() for cell in line.removeprefix("│").removesuffix("│").split("│")] for line in drawn]
    return {first: rest for first, *rest in cells if rest}


def test_a_runs_table_shows_both_stages_and_the_gain(console_text: Callable[[Any], str]) -> None:
    text = console_text(score_table({"source_only": SOURCE_ONLY, "adapted": ADAPTED}))
    assert rows(text) == {
        "class": ["source only", "adapted", "gain"],
        "road": ["70.00", "90.50", "+20.50"],
        "sky": ["50.25", "40.00", "-10.25"],
        "train": ["–", "–", ""],
        "mIoU (last)": ["60.10", "65.25", "+5.15"],
        "mIoU, 13 classes": ["65.10", "70.25", "+5.15"],
        "mIoU (best*)": ["61.00", "66.50", "+5.50"],
    }
    assert "(full protocol)" in " ".join(text.split())
    assert "chosen on the evaluation set" in text


def test_a_run_from_given_weights_has_no_gain_to_show(console_text: Callable[[Any], str]) -> None:
    found = rows(console_text(score_table({"adapted": ADAPTED, "seed": 0})))
    assert found["class"] == ["adapted"]
    assert found["road"] == ["90.50"]


def test_a_models_table_has_a_column_a_protocol(console_text: Callable[[Any], str]) -> None:
    names = ("road", "sky", "car")
    full = Scores.of(np.array([[6, 1, 0], [0, 3, 0], [0, 0, 0]]), names, "full", {"two": ("road", "sky")})
    released = Scores.of(np.array([[1, 1, 0], [0, 2, 0], [0, 0, 0]]), names, "released", {"two": ("road", "sky")})
    assert math.isnan(full.iou["car"])
    found = rows(console_text(protocol_table({"full": full, "released": released})))
    assert found == {
        "class": ["full", "released"],
        "road": ["85.71", "50.00"],
        "sky": ["75.00", "66.67"],
        "car (absent in val)": ["–", "–"],
        "mIoU": ["80.36", "58.33"],
        "pixel accuracy": ["90.00", "75.00"],
        "mean accuracy": ["92.86", "75.00"],
        "mIoU, two classes": ["80.36", "58.33"],
    }


def report(problems: list[Problem], pixels: dict[str, int]) -> CheckReport:
    return CheckReport("gta5", "/data", "train", True, 3, problems, pixels, ignored_pixels=1000)


def test_a_checks_page_names_every_fault_and_every_absent_class(console_text: Callable[[Any], str]) -> None:
    problems = [
        Problem("00007", "truncated", "/data/images/00007.png", "ends too early"),
        Problem(None, "no image", "/data/labels/00009.png", "has no image"),
    ]
    text = console_text(check_page(report(problems, {"road": 7500, "sky": 2500, "train": 0})))
    shown = rows(text)
    assert shown["truncated: 1"] == ["images/00007.png", "ends too early"]
    assert shown["no image: 1"] == ["labels/00009.png", "has no image"]
    assert shown["road"] == ["7,500", "75.00 %"]
    assert shown["train"] == ["0", "absent"]
    assert shown["ignored"] == ["1,000", ""]


def test_ten_files_stand_for_a_kind_of_fault(console_text: Callable[[Any], str]) -> None:
    problems = [Problem(f"{i}", "empty", f"/data/images/{i}.png", "the file is empty") for i in range(25)]
    text = console_text(check_page(report(problems, {})))
    assert text.count("the file is empty") == 10
    assert "empty: 25" in text
    assert "… and 15 more" in text


def test_a_sound_unlabelled_data_set_has_an_empty_page(console_text: Callable[[Any], str]) -> None:
    assert console_text(check_page(CheckReport("cityscapes", "/data", "train", False, 3))).strip() == ""


def test_names_with_brackets_are_shown_as_they_are(console_text: Callable[[Any], str]) -> None:
    problem = Problem("[old] 1", "empty", "images/[old] 1[/i].png", "the file is [b]empty")
    looks = [Suspicion("specks", "[b] is speckled", ["[old] 2"])]
    page = report([problem], {"sign [front]": 1})
    page.suspicions += looks
    shown = rows(console_text(check_page(page)))
    assert shown["empty: 1"] == ["images/[old] 1[/i].png", "the file is [b]empty"]
    assert shown["specks"] == ["[b] is speckled", "[old] 2"]
    assert "sign [front]" in shown
    results = stage_results({"sign [front]": 1.0}, 1, 1)
    assert "sign [front]" in rows(console_text(score_table({"adapted": results})))
    one = Scores.of(np.array([[1]]), ("sign [front]",), "full", {"[x]": ("sign [front]",)})
    assert {"sign [front]", "mIoU, [x] classes"} <= set(rows(console_text(protocol_table({"full": one}))))
    gaps = Comparison(["sign [front]"], [], [], {}, None, {"sign [front]": (1.0, 0.0)})
    assert "sign [front]" in rows(console_text(comparison_table(gaps)))


def test_a_class_without_a_label_is_said_to_be_absent(console_text: Callable[[Any], str]) -> None:
    one = Scores.of(np.array([[3, 1], [0, 0]]), ("road", "train"), "full")
    text = console_text(protocol_table({"full": one}))
    assert rows(text)["train (absent in val)"] == ["0.00"]
    assert "absent in val: no label there has the class" in " ".join(text.split())
    present = Scores.of(np.array([[3, 1], [0, 1]]), ("road", "train"), "full")
    assert "absent" not in console_text(protocol_table({"full": present}))


def test_a_models_table_says_where_it_was_not_computed_in_fp32(console_text: Callable[[Any], str]) -> None:
    one = {"full": Scores.of(np.array([[1]]), ("road",), "full")}
    assert "computed in bfloat16" in " ".join(console_text(protocol_table(one, "bfloat16")).split())
    assert "computed in" not in console_text(protocol_table(one))


def test_two_data_sets_are_compared_class_by_class(console_text: Callable[[Any], str]) -> None:
    shares = {"bus": (0.25, 0.0), "train": (0.0, 0.5), "wall": (0.0, 0.0), "road": (0.75, 0.5)}
    text = console_text(comparison_table(Comparison(["bus"], ["train"], ["wall"], {"road": 2 / 3}, "a note", shares)))
    assert rows(text) == {
        "class": ["share", "share in the other", "gap, points", "ratio"],
        "bus": ["25.00 %", "0.00 %", "-25.00", "only in the first"],
        "train": ["0.00 %", "50.00 %", "+50.00", "only in the other"],
        "wall": ["0.00 %", "0.00 %", "+0.00", "in neither"],
        "road": ["75.00 %", "50.00 %", "-25.00", "× 0.67"],
    }
    assert "a note" in text
