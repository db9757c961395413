"""The console that commands write to, and how errors reach it and the exit code."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment

from fastuda.distributed.lost import LostRankError
from fastuda.distributed.place import Place
from fastuda.errors import FastudaError, UsageError
from fastuda.printable import printable
from fastuda.runtime.stop import EXIT_STOPPED, StoppedError
from fastuda_cli.rank import be_ended, leave_word, take_part


class PlainConsole(Console):
    """A console on which nobody's file names act: control characters of texts are shown, and rich's own work."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich renders it, with every text printable."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text), style, control)


class _PlainFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


for _stream in (sys.stdout, sys.stderr):
    # A console of another encoding than UTF-8 gets escapes for what it cannot show. Streams of tests cannot be told.
    with suppress(AttributeError, ValueError):
        _stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]

console = PlainConsole()
_errors = PlainConsole(stderr=True)


def say(text: str) -> None:
    """Print a line as it is: paths keep their brackets and are not broken."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def complain(text: str) -> None:
    """Print an error that does not end the command, as the last one is printed."""
    _errors.print(f"[bold red]error:[/bold red] {escape(text)}", highlight=False, soft_wrap=True)


@contextmanager
def reported() -> Iterator[None]:
    """Turn what the user can mend into a message and an exit code: 2 for wrong usage, 1 for the rest.

    A run that was stopped on request, everything saved, is no error: EXIT_STOPPED, for schedulers to requeue it. Of
    several ranks the first alone says anything, and what one ends of is told by torchrun, once.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_PlainFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("fastuda").setLevel(logging.INFO)
    # What Pillow mutters over damaged files, a line of its source with each: faults are named by the commands.
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    if not sys.warnoptions:
        warnings.filterwarnings("ignore", module=r"PIL\.")
    place = Place()
    try:
        place = Place.of_environment()
        take_part(place)
        console.quiet = place.rank > 0
        yield
    except UsageError as error:
        if not leave_word(str(error)):
            _errors.print(f"[bold red]usage:[/bold red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error
    except StoppedError as stopped:
        if place.rank == 0:
            told = escape(str(stopped))
            _errors.print(f"[bold yellow]stopped:[/bold yellow] {told}", highlight=False, soft_wrap=True)
        # torchrun takes any other code for a failure, and would start the ranks anew.
        raise typer.Exit(0 if place.launched else EXIT_STOPPED) from stopped
    except LostRankError as error:
        be_ended()
        leave_word(str(error))
        raise typer.Exit(1) from error
    except FastudaError as error:
        if not leave_word(str(error)):
            complain(str(error) if place.size == 1 else f"{place.told}: {error}")
        raise typer.Exit(1) from error
    except ImportError as error:
        leave_word(str(error))
        if "nvidia" not in str(error):
            raise
        advice = "NVIDIA DALI cannot be imported; install it with: pip install nvidia-dali-cuda130"
        _errors.print(f"[bold red]error:[/bold red] {advice} ({escape(str(error))})", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
