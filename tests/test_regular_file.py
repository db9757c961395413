"""Reading what users name: files alone, of bounded size, and nothing that makes one wait."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import fastuda.files.regular_file as regular_file
from fastuda.files.regular_file import open_regular, read_regular


@pytest.mark.parametrize("what", ["pipe", "socket", "folder", "device", "link to a pipe", "loop", "nothing", "NUL"])
def test_what_is_no_file_is_an_error_at_once(what: str, tmp_path: Path) -> None:
    path = tmp_path / what
    if what == "pipe":
        os.mkfifo(path)
    elif what == "socket":
        os.mknod(path, 0o140600)
    elif what == "folder":
        path.mkdir()
    elif what == "device":
        path = Path("/dev/zero")
    elif what == "link to a pipe":
        os.mkfifo(tmp_path / "p")
        path.symlink_to("p")
    elif what == "loop":
        path.symlink_to(what)
    elif what == "NUL":
        path = tmp_path / "a\0b"
    for read in (read_regular, open_regular):
        with pytest.raises(OSError) as caught:
            read(path)
        said = caught.value.strerror
        words = {"link to a pipe": "pipe (FIFO)", "loop": "levels of symbolic links", "nothing": "No such file"}
        assert words.get(what, what) in str(said)


def test_a_file_that_becomes_a_pipe_between_two_looks_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    os.mkfifo(tmp_path / "pipe")
    found = os.stat(plain)
    monkeypatch.setattr(regular_file.os, "stat", lambda path: found)
    with pytest.raises(OSError, match="it is a pipe"):
        open_regular(tmp_path / "pipe")


def test_the_limit_is_the_most_that_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 2048)
    (tmp_path / "link").symlink_to("a")
    assert read_regular(path) == read_regular(tmp_path / "link", 2048) == b"x" * 2048
    with pytest.raises(OSError, match="larger than 1 KiB") as caught:
        read_regular(path, 2047)
    assert caught.value.errno == errno.EFBIG
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="larger than 3 MiB"):
        read_regular(path, 3 << 20)


def test_a_file_whose_size_the_system_does_not_say_is_bounded_too() -> None:
    path = Path("/proc/self/status")
    assert path.stat().st_size == 0
    assert read_regular(path).startswith(b"Name:")
    with pytest.raises(OSError, match="larger than"):
        read_regular(path, 16)
