"""Fetching pretrained weights: checked, kept, and plain words when it cannot be done."""

from __future__ import annotations

import hashlib
import io
import os
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fastuda.errors import FastudaError
from fastuda.model.deeplab.family import IMAGENET
from fastuda.model.download import fetch
from fastuda.runtime.stop import StopAskedError


def _served(tmp_path: Path, name: str = "net-{}.pth") -> tuple[str, str]:
    payload = b"weights" * 1000
    digits = hashlib.sha256(payload).hexdigest()
    path = tmp_path / "server" / name.format(digits[:8])
    path.parent.mkdir()
    path.write_bytes(payload)
    return path.as_uri(), digits


def kept(folder: Path) -> list[str]:
    """What lies in it, but for the lock."""
    return [name for name in os.listdir(folder) if name != ".lock"]


def test_of_two_that_want_a_file_one_downloads_and_the_other_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url, _ = _served(tmp_path)
    cache = tmp_path / "cache"
    cache.mkdir()
    asked: list[str] = []
    open_url = urllib.request.urlopen

    def counted(url: str, **options: Any) -> Any:
        asked.append(url)
        time.sleep(0.3)  # time for the other to come
        return open_url(url, **options)

    monkeypatch.setattr(urllib.request, "urlopen", counted)
    caplog.set_level("INFO", "fastuda")
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: fetch(url, cache), range(2))
    assert first == second
    assert asked == [url]
    assert "waiting, since another process" in caplog.text


def test_what_a_killed_download_left_is_no_part_of_the_next_one(tmp_path: Path) -> None:
    url, digits = _served(tmp_path)
    (tmp_path / "cache").mkdir()
    (tmp_path / f"cache/.net-{digits[:8]}.pth.12-34.part").write_bytes(bytes(1 << 20))
    path = fetch(url, tmp_path / "cache")
    assert path.read_bytes() == b"weights" * 1000
    assert kept(path.parent) == [path.name]


def test_fetch_checks_and_keeps_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, digits = _served(tmp_path)
    cache = tmp_path / "deep" / "cache"
    path = fetch(url, cache)
    assert path == cache / f"net-{digits[:8]}.pth"
    assert path.read_bytes() == b"weights" * 1000
    assert fetch(url, tmp_path / "other", digits.upper()).exists()

    monkeypatch.setattr(urllib.request, "urlopen", _unreachable)
    assert fetch(url, cache, digits) == path
    path.write_bytes(b"something else")
    with pytest.raises(FastudaError, match=rf"not {digits[:8]}…; delete .*net-"):
        fetch(url, cache)
    assert kept(cache) == [path.name]


@pytest.mark.parametrize("name", ["net-{}.pth", "net-00000000.pth"])
def test_fetch_leaves_nothing_of_a_wrong_file(tmp_path: Path, name: str) -> None:
    url, _ = _served(tmp_path, name)
    with pytest.raises(FastudaError, match=r"its SHA-256 is .*, not 00000000.*nothing was kept"):
        fetch(url, tmp_path / "cache", "0" * 64 if "{}" in name else None)
    assert kept(tmp_path / "cache") == []


def _unreachable(*_: object, **__: object) -> None:
    raise urllib.error.URLError("Name or service not known")


@pytest.mark.parametrize("url", [published.url for published in IMAGENET.values()])
def test_fetch_without_a_network_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", _unreachable)
    with pytest.raises(FastudaError) as caught:
        fetch(url, tmp_path)
    for word in (
        url,
        f"put the file {url.rsplit('/', 1)[1]} into {tmp_path}",
        "--set model.weights=random",
        "not known",
    ):
        assert word in str(caught.value)
    assert kept(tmp_path) == []


class _Response(io.BytesIO):
    headers = {"Content-Length": "10"}  # noqa: RUF012 - stands in for http.client's


def test_fetch_refuses_a_download_that_broke_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: _Response(b"1234"))
    with pytest.raises(FastudaError, match="4 of 10 bytes arrived"):
        fetch("https://example.org/net.pth", tmp_path)
    assert kept(tmp_path) == []


def test_a_stop_is_heard_while_a_file_arrives_and_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(_Response):
        def read1(self, _size: int | None = -1, /) -> bytes:
            return b"1"  # without end, a byte at a time

    looks: list[int] = []

    def look() -> None:
        looks.append(1)
        if len(looks) == 3:
            raise StopAskedError("SIGTERM: stopped")

    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Slow())
    with pytest.raises(StopAskedError):
        fetch("https://example.org/net.pth", tmp_path, look=look)
    assert kept(tmp_path) == []


def test_a_disk_that_is_full_is_named_and_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    url, digits = _served(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FastudaError, match=rf"net-{digits[:8]}\.pth: no space left on the disk"):
        fetch(url, tmp_path / "cache")
    assert kept(tmp_path / "cache") == []


@pytest.mark.parametrize("url", ["resnet152", "ftp://example.org/net.pth", "https://example.org/"])
def test_what_is_no_url_of_a_file_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(FastudaError, match=f"{url}: not an http, https or file URL"):
        fetch(url, tmp_path)


def test_a_cache_that_cannot_be_a_folder(tmp_path: Path) -> None:
    url, _ = _served(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(FastudaError, match="cannot download"):
        fetch(url, tmp_path / "file")
