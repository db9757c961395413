"""What a person sees while a run goes on: bars on a terminal, plain lines in a log file."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from fastuda.metrics import Scores
from fastuda.recipe.paper import PAPER_HOURS, PAPER_ITERATIONS
from fastuda.report.streams import GuardedStream

log = logging.getLogger(__name__)

_LINE_EVERY_SECONDS = 10.0


class Display:
    """Shows tasks, stages and scores on a rich console; on anything but a terminal, as occasional lines."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def unfailing(self) -> Display:
        """The same for a run, which does not end because nobody can read of it.

        What the console cannot write (a full disk, a pipe that was closed) is lost, and the log says so once.
        """
        return _UnfailingDisplay(self.console)

    def task(self, title: str) -> Callable[[int, int], None]:
        """A function to call with (done, total); shows a bar while `done` grows, a line when it is complete."""
        return _TaskBar(self.console, title)

    def heading(self, text: str) -> None:
        """A rule above what comes next, one run of several."""
        self.console.rule(Text(text, "bold"), align="left")

    def note(self, text: str) -> None:
        """A line as it is."""
        self.console.print(Text(text), soft_wrap=True)

    @contextmanager
    def stage(self, title: str, start: int, total: int, *, as_paper: bool = False) -> Iterator[StageProgress]:
        """Shows a training stage of `total` iterations, begun at `start`.

        `as_paper` adds what the paper's run takes at this pace, which says something where the work is the same.
        """
        self.console.print(f"[bold]{title.capitalize()}[/bold]: iterations {start + 1} to {total}")
        with Live("", console=self.console, auto_refresh=False) as live:
            yield StageProgress(self.console, title, total, live, as_paper=as_paper)

    def evaluated(self, title: str, iteration: int, scores: Scores) -> None:
        """One evaluation's mIoU."""
        self.console.print(f"{title} {iteration}: [bold]mIoU {scores.miou:.2f}[/bold] ({scores.protocol} protocol)")


def display_of(display: Display | bool) -> Display:
    """A display on the standard output for True, one that shows nothing for False; any other is itself."""
    if isinstance(display, Display):
        return display
    return Display(Console() if display else Console(quiet=True, force_terminal=False))


class _UnfailingDisplay(Display):
    def __init__(self, console: Console) -> None:
        mine = copy.copy(console)  # whoever else writes to the console is told of failures
        mine.file = cast(IO[str], GuardedStream(console.file, self._lose))
        super().__init__(mine)
        self._told = False

    def unfailing(self) -> Display:
        return self

    def _lose(self, error: OSError) -> None:
        if not self._told:
            self._told = True
            log.warning(
                "the run's progress cannot be shown (%s); it goes on, and log.jsonl in its folder tells of it",
                error.strerror or error,
            )  # fmt: skip


class StageProgress:
    """The line of a training stage."""

    def __init__(self, console: Console, title: str, total: int, live: Live, *, as_paper: bool) -> None:
        self._console = console
        self._as_paper = as_paper
        self._live = live
        self._title = title
        self._total = total
        self._last_line = 0.0

    def advance(self, done: int, losses: dict[str, float], rate: float, miou: float | None) -> None:
        """Show `done` iterations, mean losses, iterations a second, and the last evaluation's mIoU if any."""
        terms = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
        score = "" if miou is None else f" · mIoU {miou:.2f}"
        left = _duration((self._total - done) / rate)
        line = f"{self._title} {done}/{self._total} · {rate:.2f} it/s · {terms}{score} · {left} left"
        if self._as_paper:
            hours = PAPER_ITERATIONS / rate / 3600
            line += (
                f" · at this pace {PAPER_ITERATIONS // 1000}k iterations take {hours:.1f} h (paper: {PAPER_HOURS} h)"
            )
        self._show(line, last=done == self._total)

    def _show(self, line: str, *, last: bool) -> None:
        """One line that changes on a terminal; elsewhere a line now and then, and the last one."""
        if self._console.is_terminal:
            self._live.update(Text(line), refresh=True)
        elif last or time.monotonic() - self._last_line >= _LINE_EVERY_SECONDS:
            self._last_line = time.monotonic()
            self._console.print(Text(line), soft_wrap=True)


class _TaskBar:
    """A bar that appears with the first call and goes with the last."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._bar: Progress | None = None
        self._task: Any = None

    def __call__(self, done: int, total: int) -> None:
        if not self._console.is_terminal:
            if done == total:
                self._console.print(f"{self._title}: {total}", highlight=False)
            return
        if self._bar is None:
            columns: list[ProgressColumn] = [
                TextColumn("{task.description}"),
                BarColumn(),
                _Count(),
                TimeElapsedColumn(),
            ]
            self._bar = Progress(*columns, console=self._console, transient=done < total)
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=total)
        self._bar.update(self._task, completed=done, total=total)
        if done >= total:
            self._bar.stop()
            self._bar = None


class _Count(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{int(task.completed)}/{int(task.total or 0)}")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
