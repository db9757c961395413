"""The console that commands write to, and how errors reach it and the exit code."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

from fastuda.errors import FastudaError, UsageError

console = Console()
_errors = Console(stderr=True)


def say(text: str) -> None:
    """Print a line as it is: paths keep their brackets and are not broken."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def complain(text: str) -> None:
    """Print an error that does not end the command, as the last one is printed."""
    _errors.print(f"[bold red]error:[/bold red] {escape(text)}", highlight=False, soft_wrap=True)


@contextmanager
def reported() -> Iterator[None]:
    """Turn what the user can mend into a message and an exit code: 2 for wrong usage, 1 for the rest."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("fastuda").setLevel(logging.INFO)
    try:
        yield
    except UsageError as error:
        _errors.print(f"[bold red]usage:[/bold red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error
    except FastudaError as error:
        complain(str(error))
        raise typer.Exit(1) from error
    except ImportError as error:
        if "nvidia" not in str(error):
            raise
        advice = "NVIDIA DALI cannot be imported; install it with: pip install nvidia-dali-cuda130"
        _errors.print(f"[bold red]error:[/bold red] {advice} ({escape(str(error))})", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
