"""Options that several commands share, and how they become recipe settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def path(text: str) -> Path:
    """A path as a user writes it: `~` means home wherever it stands, as in `--out=~/predictions`."""
    from fastuda.errors import UsageError
    from fastuda.files.paths import user_path

    try:
        return user_path(text)
    except UsageError as error:
        raise typer.BadParameter(str(error)) from error


Recipe = Annotated[str, typer.Argument(help="A recipe's name (`fastuda recipes` lists them) or a TOML file.")]
Source = Annotated[Path | None, typer.Option(help="The source data set's folder.", parser=path)]
Target = Annotated[Path | None, typer.Option(help="The target data set's folder.", parser=path)]
Settings = Annotated[list[str] | None, typer.Option("--set", help="Set any recipe field: --set method.tau=0.9")]
Device = Annotated[str | None, typer.Option(help="cuda or cpu; a GPU if there is one.", metavar="cuda|cpu")]
RunOrWeights = Annotated[
    Path, typer.Argument(help="A run's folder, or a weights file (fastuda's or a released one).", parser=path)
]
Force = Annotated[
    bool,
    typer.Option("--force", help="With --resume: go on although recipe, data, code or libraries are others; recorded."),
]
Gpus = Annotated[
    int | None,
    typer.Option(
        help="Work on this many GPUs, a process each, started by torchrun; with --device cpu on the cores.", min=1
    ),
]
MaxTime = Annotated[
    str | None,
    typer.Option(
        help="Stop after this time as on a signal, all saved, exit code 75: 8h, 90m, 08:00:00.", metavar="TIME"
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        help="Runs at a time, each in a process of its own with its own GPU; results are the same with any number.",
        min=1,
    ),
]
Values = Annotated[
    str,
    typer.Option(
        help="What the label PNGs hold: Cityscapes' labelIds, with free ones for own classes, or train ids.",
        metavar="label-ids|train-ids",
    ),
]
Flip = Annotated[bool | None, typer.Option(help="Average with the mirrored image's answer.")]
Scales = Annotated[
    str | None, typer.Option(help="Average the answers at these multiples of the size, such as 0.75,1,1.25.")
]
Which = Annotated[str, typer.Option(help="last or best (chosen on the evaluation set).", metavar="last|best")]
Stage = Annotated[str, typer.Option(help="adapted or source_only.", metavar="adapted|source_only")]


def settings(set_: list[str] | None, source: Path | None, target: Path | None) -> list[str]:
    """`--set` values with `--source` and `--target` as the settings that they stand for; those win."""
    from fastuda.recipe.file import with_folders

    return with_folders(set_ or [], source, target)


def deadline(max_time: str | None) -> float | None:
    """The time of `time.monotonic` at which `--max-time` is over, counted from now; UsageError for no time."""
    import time

    from fastuda.runtime.stop import duration

    return None if max_time is None else time.monotonic() + duration(max_time)


def seeds(text: str) -> list[int]:
    """`0,1,2` as numbers; UsageError for anything else."""
    from fastuda.errors import UsageError

    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 0 or len(set(found)) < len(found):
        raise UsageError(f"--seeds {text}: different whole numbers from 0 on, separated by commas, such as 0,1,2")
    return found


def scales(text: str | None) -> tuple[float, ...] | None:
    """`0.75,1,1.25` as numbers, None as None; UsageError for anything else."""
    from fastuda.errors import UsageError

    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--scales {text}: numbers separated by commas, such as 0.75,1,1.25") from None
