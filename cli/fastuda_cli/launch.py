"""`--gpus N`: the same command on several processes, started by torchrun, and what is told of how they ended."""

from __future__ import annotations

import logging
import os
import platform
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import typer

_OWN = ("gpus", "max_restarts")
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def started(context: typer.Context, gpus: int, device: str | None, max_restarts: int = 0, **more: object) -> None:
    """Run the command of `context` on `gpus` processes and return once all have ended well; `more` are options to add.

    Only torchrun is called, as `torchrun --standalone --nproc-per-node N -m fastuda_cli …` calls it. What asks this
    process to stop is passed on to all of them, which save and end. Raises FastudaError with rank, host and error when
    one of them fails for good, UsageError where there are not so many GPUs.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import run

    _require_gpus(gpus, device)
    # A few threads a process: torchrun would leave each a single one.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // gpus)))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.ERROR if max_restarts else logging.CRITICAL)
    with _stops_passed_on():
        try:
            run(_torchrun(gpus, max_restarts, _arguments(context, more)))  # type: ignore[no-untyped-call]
        except ChildFailedError as error:
            _tell(error)


def _require_gpus(gpus: int, device: str | None) -> None:
    import torch

    from fastuda.errors import UsageError

    if device == "cpu":
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0 and device is None:
        raise UsageError(f"--gpus {gpus}: torch finds no GPU here; --device cpu starts {gpus} processes on its cores")
    if gpus > count:
        raise UsageError(f"--gpus {gpus}: torch finds {count} here (CUDA_VISIBLE_DEVICES narrows what it sees)")


def _torchrun(gpus: int, max_restarts: int, arguments: Sequence[str]) -> Any:
    """torchrun's own arguments. It leaves signals to this process, which knows how to have a run saved."""
    from torch.distributed.run import get_args_parser

    parser = get_args_parser()
    known = {option for action in parser._actions for option in action.option_strings}
    own = ["--standalone", f"--nproc-per-node={gpus}", f"--max-restarts={max_restarts}"]
    own += ["--signals-to-handle=SIGQUIT"] if "--signals-to-handle" in known else []
    own += ["--shutdown-timeout=20"] if "--shutdown-timeout" in known else []
    return parser.parse_args([*own, "-m", "fastuda_cli", "--", *arguments])  # or its --run-path would be meant by --run


def _arguments(context: typer.Context, more: dict[str, object]) -> list[str]:
    """A command as it was given, without what started several processes, and with `more`."""
    given: list[str] = [context.info_name or ""]
    named: list[str] = []
    for parameter in context.command.params:
        name = parameter.name or ""
        value = more.get(name, context.params[name])
        asked = _was_given(context, name) or name in more
        if name in _OWN or not asked:
            continue
        values = value if isinstance(value, list | tuple) else [value]
        if parameter.param_type_name == "argument":
            named += map(str, values)
        elif isinstance(value, bool):
            options = parameter.opts if value else parameter.secondary_opts
            given += options[:1]
        else:
            given += [part for one in values for part in (parameter.opts[0], str(one))]
    return [*given, "--", *named]


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


@contextmanager
def _stops_passed_on() -> Iterator[None]:
    """While entered, what asks this process to stop asks the ranks; a second Ctrl-C ends them and this at once."""
    asked = False

    def pass_on(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        at_once = asked and number == signal.SIGINT
        for process in _children():
            os.kill(process, signal.SIGKILL if at_once else signal.SIGTERM)
        if at_once:
            os._exit(128 + number)
        asked = True

    before = {number: signal.signal(number, pass_on) for number in _STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _children() -> list[int]:
    """Processes that this one has started."""
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        try:
            found += map(int, (task / "children").read_text().split())
        except OSError:  # a thread that has just ended
            continue
    return found


def _tell(error: Any) -> None:
    """Raise what a rank died of as one line: which, where, of what."""
    from fastuda.errors import FastudaError, UsageError
    from fastuda.runtime.watchdog import EXIT_STUCK

    rank, failure = error.get_first_failure()
    who = f"rank {rank} on {platform.node()}"
    told = failure.error_file_data.get("message") if isinstance(failure.error_file_data, dict) else None
    if isinstance(told, dict):
        text = str(told.get("message", "")).strip()
        raise (UsageError if failure.exitcode == 2 else FastudaError)(f"{who}: {text}") from error
    if failure.exitcode < 0:
        killed = failure.exitcode == -signal.SIGKILL
        hint = "; the kernel does so to what takes too much memory (dmesg tells)" if killed else ""
        raise FastudaError(f"{who} (process {failure.pid}) was ended by {failure.signal_name()}{hint}") from error
    stuck = " after it had made no progress" if failure.exitcode == EXIT_STUCK else ""
    raise FastudaError(f"{who} (process {failure.pid}) ended with exit code {failure.exitcode}{stuck}") from error
