"""fastuda's command, called in this process, and the least that it can be given."""

from __future__ import annotations

from pathlib import Path

from tiny import NETWORK, SGD, VIEWS
from typer.testing import CliRunner

from fastuda.demo import draw_demo
from fastuda_cli.main import app

TINY = [
    *("classes.preset=cityscapes19", *VIEWS, "eval.size=[64, 32]", *NETWORK, *SGD),
    *("warmup.iterations=2", "train.evaluate_every=2", "runtime.loader_threads=1"),
]


def fastuda(*arguments: object) -> tuple[int, str]:
    """Exit code and everything printed, in lines that hold the longest path."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "300"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def settings(*more: str) -> list[str]:
    """A tiny run's, as options."""
    return [part for setting in (*TINY, *more) for part in ("--set", setting)]


def drawn_pair(root: Path) -> Path:
    """Nine source images and four of the target, drawn into `root`."""
    draw_demo(root, num_source=9, num_source_val=2, num_target=4, num_val=3, size=(64, 32), workers=1)
    return root
