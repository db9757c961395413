"""`--gpus` and torchrun as commands take them: what is refused, and how the command is given to the ranks."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from commands import fastuda, settings
from typer.testing import CliRunner

from fastuda.distributed.place import Place
from fastuda.errors import FastudaError, UsageError
from fastuda_cli import launch, options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "demo", "--gpus", "2"), "--gpus 2: torch finds no GPU here; --device cpu starts 2 processes"),
        (("train", "demo", "--gpus", "2", "--device", "cuda"), "--gpus 2: torch finds 0 here"),
        (("train", "demo", "--max-restarts", "2"), "--max-restarts goes with --gpus"),
        (("train", "demo", "--repeat", "2", "--gpus", "2"), "--repeat gives each run one process; --workers K runs"),
    ],
)
def test_what_cannot_be_started_is_said(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    code, output = fastuda(*arguments, "--run", tmp_path / "run", *settings())
    assert code == 2
    assert message in output
    assert not (tmp_path / "run").exists()


def test_a_study_is_not_for_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    code, output = fastuda("study", "table3", "--base", "demo")
    assert code == 2
    assert "leave torchrun out" in output


def test_a_folder_that_holds_a_run_is_refused_before_any_rank_starts(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    code, output = fastuda("train", "demo", "--gpus", "2", "--device", "cpu", "--run", tmp_path / "run", *settings())
    assert code == 1
    assert "exists already and is no run" in output
    assert "rank" not in output


def given(arguments: list[str]) -> list[str]:
    """What ranks are started with for a command like this one."""
    found: list[str] = []
    app = typer.Typer()

    @app.command("show")
    def show(
        context: typer.Context,
        names: Annotated[list[str], typer.Argument()],
        run: Annotated[Path | None, typer.Option(parser=options.path)] = None,
        force: Annotated[bool, typer.Option("--force")] = False,
        flip: Annotated[bool | None, typer.Option()] = None,
        count: Annotated[int, typer.Option()] = 3,
        set_: options.Settings = None,
        gpus: options.Gpus = None,
        max_restarts: Annotated[int, typer.Option()] = 0,
    ) -> None:
        found.extend(launch._arguments(context, {"run": Path("/chosen")} if run is None else {}))

    @app.callback()
    def callback() -> None:
        pass

    result = CliRunner().invoke(app, ["show", *arguments])
    assert result.exit_code == 0, result.output
    return found


def test_the_command_is_handed_on_as_it_was_given() -> None:
    assert given(["a", "--gpus", "2", "--max-restarts", "1"]) == ["show", "--run", "/chosen", "--", "a"]
    assert given(["--force", "a", "b b", "--set", "x=1", "--set", "y=[1, 2]", "--no-flip", "--run", "r"]) == [
        *("show", "--run", "r", "--force", "--no-flip", "--set", "x=1", "--set", "y=[1, 2]", "--", "a", "b b")
    ]
    assert given(["--count", "3", "--flip", "-", "--gpus=8"]) == [
        *("show", "--run", "/chosen", "--flip", "--count", "3", "--", "-")
    ]


class _FailedError(Exception):
    """As torchrun tells of failed ranks."""

    def __init__(self, **failure: Any) -> None:
        about = {"pid": 7, "exitcode": 1, "error_file_data": {"message": "<NONE>"}, "signal_name": lambda: "SIGSEGV"}
        self._failure = type("Failure", (), about | failure)

    def get_first_failure(self) -> tuple[int, Any]:
        return 3, self._failure


@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        ({"exitcode": -9, "signal_name": lambda: "SIGKILL"}, FastudaError, r"was ended by SIGKILL; the kernel does so"),
        ({"exitcode": -11}, FastudaError, r"rank 3 on \S+ \(process 7\) was ended by SIGSEGV$"),
        ({"exitcode": 76}, FastudaError, r"ended with exit code 76 after it had made no progress$"),
        ({"exitcode": 5}, FastudaError, r"ended with exit code 5$"),
        ({"error_file_data": {"message": {"message": "x: gone"}}}, FastudaError, r"^rank 3 on \S+: x: gone$"),
        ({"error_file_data": {"message": {"message": "bad"}}, "exitcode": 2}, UsageError, r"^rank 3 on \S+: bad$"),
    ],
)
def test_the_end_of_a_rank_is_told_in_one_line(failure: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as told:
        launch._tell(_FailedError(**failure))
    assert type(told.value) is kind
    assert "\n" not in str(told.value)


def test_an_allowance_counts_from_torchruns_start() -> None:
    assert Place().began() == pytest.approx(time.monotonic(), abs=1)
    launched = Place(launched=True)
    parent = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()
    assert launched.began() == pytest.approx(float(parent[19]) / os.sysconf("SC_CLK_TCK"))
    assert launched.began() < time.monotonic()
