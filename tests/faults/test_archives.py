"""Files around weights: archives, pickles and what is no file at all take neither memory nor time, and run nothing."""

from __future__ import annotations

import errno
import os
import resource
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from faults.reading import SPECIAL, STEM, State, refused, released, special_files
from faults.weights_file import torch_bytes
from safetensors.torch import save_file

import fastuda.files.regular_file as regular_file
from fastuda.errors import FastudaError
from fastuda.model.weights import read_weights


def cyclic(content: dict[str, Any]) -> dict[str, Any]:
    content["model"] = {"deeper": content}
    return content


def doubled(content: object, names: tuple[str, str], depth: int) -> object:
    for _ in range(depth):
        content = dict.fromkeys(names, content)
    return content


@pytest.mark.parametrize("zipped", [True, False])
def test_dictionaries_that_hold_themselves_are_refused(zipped: bool, state: State, tmp_path: Path) -> None:
    own: dict[str, Any] = dict(released(state))
    own["state_dict"] = own
    beside: dict[str, Any] = {"model": released(state), "config": {}}
    beside["config"]["all"] = beside
    for content in (own, beside, cyclic({}), cyclic({"ema": released(state)})):
        (tmp_path / "w.pth").write_bytes(torch_bytes(content, zipped=zipped))
        refused(tmp_path / "w.pth", "a dictionary that contains itself")


@pytest.mark.parametrize("names", [("model", "ema"), ("state_dict", "x"), ("student", "teacher")])
def test_dictionaries_that_share_the_next_one_are_walked_once(
    names: tuple[str, str], state: State, tmp_path: Path
) -> None:
    torch.save(doubled(released(state), names, 60), tmp_path / "w.pth")
    assert torch.equal(read_weights(tmp_path / "w.pth").state[STEM], state[STEM])
    torch.save(doubled({"epoch": 1}, names, 60), tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "no tensors at all")
    torch.save(doubled(released(state), names, 64), tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "more than 64 deep")


@pytest.mark.parametrize(
    ("opening", "closing", "words"),
    [
        (b"}X\x05\x00\x00\x00model", b"s", "more than 64 deep"),
        (b"]", b"a", "holds a list"),
        (b"", b"\x85", "holds a tuple"),
    ],
)
def test_nesting_beyond_any_stack_is_refused(opening: bytes, closing: bytes, words: str, tmp_path: Path) -> None:
    pickled = b"\x80\x02" + opening * 10**5 + b"N" + closing * 10**5 + b"."
    refused(zipped_pickle(tmp_path, pickled), words)


def zipped_pickle(tmp_path: Path, pickled: bytes, compression: int = zipfile.ZIP_STORED, **more: bytes) -> Path:
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in {"data.pkl": pickled, "version": b"3\n", "byteorder": b"little", **more}.items():
            file.writestr(f"archive/{name}", content)
    return path


@pytest.mark.parametrize("key", [1, 2.5, (1, 2), None, True, "\udcff", "a\nb", "\x1b[2J", "x" * 10**6, ""])
def test_keys_that_are_no_names_are_left_out(key: Any, state: State, tmp_path: Path) -> None:
    torch.save(
        {"model": {**released(state), key: torch.zeros(1)}} if key != "" else released(state), tmp_path / "w.pth"
    )
    found = read_weights(tmp_path / "w.pth")
    assert set(found.state) == set(state)
    assert all(name.isprintable() and len(name) < 200 for name in found.dropped)
    torch.save({**{f"x.{i}": torch.zeros(1) for i in range(9)}, key: torch.zeros(1)}, tmp_path / "w.pth")
    assert refused(tmp_path / "w.pth", "foreign network").isprintable()


def test_prefixes_without_end_are_taken_off_or_refused(state: State, tmp_path: Path) -> None:
    torch.save({"module." * 60 + key: value for key, value in released(state).items()}, tmp_path / "w.pth")
    assert set(read_weights(tmp_path / "w.pth").state) == set(state)
    torch.save({"module." * 5000 + key: value for key, value in released(state).items()}, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "foreign network")


@pytest.mark.parametrize("form", ["safetensors", "torch"])
def test_keys_without_number_are_refused(form: str, state: State, header: dict[str, str], tmp_path: Path) -> None:
    one = torch.zeros(1)
    many = {f"backbone.layer1.{i}.x": one if form == "torch" else one.clone() for i in range(20_001)} | state
    path = tmp_path / "w.safetensors"
    torch.save(many, path) if form == "torch" else save_file(many, path, header)
    refused(path, "more than any network of fastuda's")


def memory() -> int:
    """Bytes that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}."
BOMBS: dict[str, tuple[Callable[[Path], object], str]] = {
    "deflated pickle": (
        lambda path: zipped_pickle(path, bytes(10**8), zipfile.ZIP_DEFLATED), "data.pkl is compressed, as torch.save",
    ),
    "deflated storage": (
        lambda path: zipped_pickle(path, b"\x80\x02}.", zipfile.ZIP_LZMA, data=bytes(10**8)), "is compressed",
    ),
    "bytearray": (
        lambda path: zipped_pickle(path, b"\x80\x02c__builtin__\nbytearray\n\x8a\x06\0\0\0\0\0\x20\x85R."),
        "far more memory than it has bytes",
    ),
    "bytearray that would fit": (
        lambda path: zipped_pickle(path, b"\x80\x02c__builtin__\nbytearray\n\x8a\x05\0\0\0\0\2\x85R."),
        "far more memory than it has bytes",
    ),
    "tensor": (
        lambda path: zipped_pickle(path, b"\x80\x02ctorch\nFloatTensor\n\x8a\x06\0\0\0\0\0\x20\x85R."),
        "far more memory than it has bytes",
    ),
    "legacy bytearray": (
        lambda path: (path / "w.pth").write_bytes(
            LEGACY + b"\x80\x02c__builtin__\nbytearray\n\x8a\x06\0\0\0\0\0\x20\x85R.\x80\x02]."
        ),
        "far more memory than it has bytes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", list(BOMBS))
def test_files_that_ask_for_more_memory_than_they_have_are_refused(what: str, tmp_path: Path) -> None:
    make, words = BOMBS[what]
    make(tmp_path)
    before, limits = memory(), resource.getrlimit(resource.RLIMIT_DATA)
    refused(tmp_path / "w.pth", words)
    assert memory() - before < 1 << 30
    assert resource.getrlimit(resource.RLIMIT_DATA) == limits


def edited(data: bytes, place: int, content: bytes) -> bytes:
    return data[:place] + content + data[place + len(content) :]


ARCHIVES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "text behind": (lambda data: data + b"x", "the archive's directory is not at its end"),
    "zeros behind": (lambda data: data + bytes(100), "the archive's directory is not at its end"),
    "bytes before": (lambda data: b"PK\x03\x04" + data, "the archive's directory is not at its end"),
    "another zip64 directory": (lambda data: edited(data, len(data) - 34, b"\1"), "directory is not at its end"),
    "10^9 entries": (lambda data: edited(data, len(data) - 98 + 32, struct.pack("<Q", 10**9)), "1000000000 entries"),
    "a bit of a value": (lambda data: edited(data, data.index(b"VALUES"), b"v"), "Bad CRC-32"),
    "a bit of the list": (lambda data: edited(data, data.index(b"conv1.weight"), b"C"), "Bad CRC-32"),
    "an entry's size": (lambda data: edited(data, data.index(b"PK\1\2") + 24, b"\xff" * 3), "its entries overlap"),
    "twice the same entry": (lambda data: data.replace(b"data/1", b"data/0"), "its entries overlap"),
}


@pytest.mark.parametrize("what", list(ARCHIVES))
def test_archives_that_torch_did_not_write_are_refused(what: str, state: State, tmp_path: Path) -> None:
    change, words = ARCHIVES[what]
    plain = released(state)
    plain["fc.weight"] = torch.frombuffer(bytearray(b"VALUES.."), dtype=torch.float32)
    whole = torch_bytes(plain)
    (tmp_path / "w.pth").write_bytes(whole)
    assert len(read_weights(tmp_path / "w.pth").state) == len(state)
    (tmp_path / "w.pth").write_bytes(change(whole))
    refused(tmp_path / "w.pth", words)


def test_an_archive_written_without_checksums_is_read(state: State, tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(released(state), tmp_path / "w.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(read_weights(tmp_path / "w.pth").state[STEM], state[STEM])


def test_a_torchscript_archive_is_called_one(tmp_path: Path) -> None:
    refused(zipped_pickle(tmp_path, b"\x80\x02}.", **{"constants.pkl": b"\x80\x02)."}), "it is a TorchScript archive")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ""])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_is_what_it_holds_not_what_it_is_called(
    suffix: str, zipped: bool, state: State, base: Path, tmp_path: Path
) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(torch_bytes(released(state), zipped=zipped))
    assert read_weights(path).origin == "released"
    path.write_bytes(base.read_bytes())
    assert read_weights(path).origin == "fastuda"


@pytest.mark.parametrize("what", SPECIAL)
def test_what_is_no_file_of_weights_is_refused_at_once(what: str, tmp_path: Path) -> None:
    path, words = special_files(tmp_path)[what]
    refused(path, words)
    with pytest.raises(FastudaError, match=words):
        read_weights(path)


def test_a_folder_as_weights_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(FastudaError, match="it is a folder, not a weights file"):
        read_weights(tmp_path)
    with pytest.raises(FastudaError, match="a path with a NUL character"):
        read_weights(tmp_path / "a\0b")


@pytest.mark.parametrize(("call", "number"), [("open", errno.EACCES), ("open", errno.ELOOP), ("fstat", errno.EIO)])
def test_what_the_system_refuses_is_named(call: str, number: int, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(regular_file, "os", SimpleNamespace(**{**vars(os), call: broken}))
    with pytest.raises(FastudaError, match=rf"sound\.safetensors: cannot be read: {os.strerror(number)}"):
        read_weights(base)
