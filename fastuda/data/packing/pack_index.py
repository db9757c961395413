"""The index of a packed data set and the journal of an unfinished one, each line with a checksum of its own."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastuda.data.packing.pack import IMAGES, INDEX, JOURNAL, KINDS, LABELS, SHARDS, Record
from fastuda.errors import FastudaError
from fastuda.files.disk import append, write_atomic
from fastuda.files.lock import HOLDER, LOCK


def damaged_files(folder: Path, record: Record) -> list[Path]:
    """The record's packed files that are gone or have another size than they were written with."""
    paths = [folder / kind / name for kind in KINDS if (name := record.file(kind)) is not None]
    return [path for path, size in zip(paths, record.packed_bytes, strict=True) if _file_size(path) != size]


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else -1
    except OSError:
        return -1


def refuse_foreign(folder: Path) -> None:
    """FastudaError naming the first entry of `folder` that no pack would hold."""
    ours = {INDEX, JOURNAL, LOCK, HOLDER, IMAGES, LABELS}
    for entry in sorted(folder.iterdir()) if folder.exists() else []:
        if entry.name not in ours and not entry.name.endswith(".part") and not SHARDS.fullmatch(entry.name):
            raise FastudaError(
                f"{folder}: holds {entry.name}, which is no part of a packed data set; "
                "move it away, or delete the folder, and run again"
            )


@dataclass(frozen=True)
class Index:
    """What index.json says: which samples a finished pack holds, in order."""

    fingerprint: str | None
    """None for an index that is damaged: `records` are then those that can still be told to be sound."""
    records: list[Record]


def read_index(folder: Path, key: dict[str, Any]) -> Index | None:
    """The index of a finished pack; None when there is none; FastudaError when it cannot be read at all.

    `key` says what is packed and how; nothing in the index of anything else is taken.
    """
    path = folder / INDEX
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FastudaError(f"{path}: cannot be read ({error.strerror}); delete {folder} and run again") from error
    salt = _salt(key)
    try:
        content = _unsealed(data, salt)
        return Index(str(content["fingerprint"]), [_record(one) for one in content["samples"]])
    except _SealError:
        return Index(None, _records(data.splitlines(), salt))


def index_content(key: dict[str, Any], digest: str, records: Iterable[Record]) -> bytes:
    """The bytes of index.json, whose presence says that a pack is complete: JSON, a line a sample.

    The whole and every line bear checksums, so that a damaged index still tells which of its lines are sound.
    """
    salt = _salt(key)
    lines = b",\n".join(_sealed(asdict(record), salt) for record in records)
    head = json.dumps({"key": key, "fingerprint": digest})[:-1].encode()
    return _with_seal(head + b', "samples": [\n' + lines + b"\n]}", salt)


def read_journal(folder: Path, key: dict[str, Any]) -> list[Record]:
    """Records of the samples that an unfinished run completed; a torn or damaged line is dropped."""
    try:
        return _records((folder / JOURNAL).read_bytes().splitlines(), _salt(key))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise FastudaError(f"{folder / JOURNAL}: cannot be read ({error.strerror}); delete it and run again") from error


def journal_line(record: Record, key: dict[str, Any]) -> bytes:
    """The line of journal.jsonl that marks one sample as done."""
    return _sealed(asdict(record), _salt(key)) + b"\n"


def remember(folder: Path, record: Record, key: dict[str, Any]) -> None:
    """Put the record of a sample that was packed again in its index, or in the journal if that is gone or damaged."""
    index = read_index(folder, key)
    if index is None or index.fingerprint is None:
        append(folder / JOURNAL, journal_line(record, key))
    elif record not in index.records:
        records = [record if one.name == record.name else one for one in index.records]
        write_atomic(folder / INDEX, index_content(key, index.fingerprint, records))


class _SealError(ValueError):
    pass


_SEAL, _SEAL_END = b'{"checksum": "', b'", '
_SEAL_BYTES = len(_SEAL) + 8 + len(_SEAL_END)


def _salt(key: dict[str, Any]) -> int:
    """Checksums start from what is packed and how, so that no line of another pack passes."""
    return zlib.crc32(json.dumps(key, sort_keys=True).encode())


def _with_seal(content: bytes, salt: int) -> bytes:
    """A JSON object with the CRC-32 of its own bytes as its first field."""
    return _SEAL + b"%08x" % zlib.crc32(content, salt) + _SEAL_END + content[1:]


def _sealed(content: dict[str, Any], salt: int) -> bytes:
    return _with_seal(json.dumps(content).encode(), salt)


def _unsealed(data: bytes, salt: int) -> dict[str, Any]:
    if data[:_SEAL_BYTES] != _SEAL + b"%08x" % zlib.crc32(b"{" + data[_SEAL_BYTES:], salt) + _SEAL_END:
        raise _SealError
    content: dict[str, Any] = json.loads(data)
    del content["checksum"]
    return content


def _record(content: dict[str, Any]) -> Record:
    del content["checksum"]
    return Record(**content)


def _records(lines: Iterable[bytes], salt: int) -> list[Record]:
    """The records of those lines that are whole."""
    records = []
    for line in lines:
        try:
            records.append(Record(**_unsealed(line.rstrip(b","), salt)))
        except _SealError:
            continue
    return records
