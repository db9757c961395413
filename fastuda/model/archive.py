"""Files of strangers opened: regular, of a size that can be, unpacked to no more than they are, code never run."""

from __future__ import annotations

import errno
import os
import pickle
import re
import resource
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import safe_open

from fastuda.errors import FastudaError, UnreadableError
from fastuda.files.regular_file import IrregularError, open_regular
from fastuda.model.digest import verify
from fastuda.model.onnx_file import read_onnx
from fastuda.printable import on_one_line

MOST_BYTES = 16 << 30
"""The largest file that is read; fastuda's largest network has a quarter of it in fp64."""

_MOST_HEADER_BYTES = 16 << 20
_MOST_ONNX_BYTES = 1 << 30
_MOST_TENSORS = 20_000
_MOST_ENTRIES = 100_000
_SPARE_BYTES = 1 << 30
_PART_BYTES = 1 << 20
# How torch says of a file that it could not map, and why.
_NOT_MAPPED = re.compile(r"unable to (?:open|stat|mmap|map) .*: ([^:]+) \((\d+)\)$")

# Released checkpoints keep their best mIoU as a NumPy number: plain data, under the old module name too.
_numpy_scalar: Any = np.float64(0).__reduce__()[0]
_NUMPY_SCALARS: list[Any] = [
    _numpy_scalar,
    (_numpy_scalar, "numpy.core.multiarray.scalar"),
    np.dtype,
    np.dtypes.Float64DType,
    np.dtypes.Float32DType,
    np.dtypes.Int64DType,
]


def read_archive(path: Path) -> tuple[Mapping[object, object], dict[str, str]]:
    """The content of a `.safetensors` or `torch.save` file, and a safetensors file's metadata, its checksum verified;
    of a `.onnx` file its convolutions (`read_onnx`).

    Tensors may be anything that such a file can hold, of any dtype, layout and shape, but none was computed on, and
    none needs more memory than the file has. Raises FastudaError, with the path, when the file is missing, no regular
    file, damaged, unpacks to more than it is, or holds code, which is never run; UnreadableError when the system does
    not let it be read, which says nothing of its content.
    """
    with opened(path) as (file, size):
        start = file.read(9)
        if size > MOST_BYTES:
            raise FastudaError(
                f"{path}: it has {size / 1e9:.0f} GB, which no network of fastuda's has (at most "
                f"{MOST_BYTES / 1e9:.0f}); take the weights out of it"
            )
        if size == 0:
            raise FastudaError(f"{path}: no readable weights: the file is empty; copy or download it again")
        if path.suffix == ".onnx":
            return _read_onnx(path, file, start, size), {}
        zipped = start.startswith(b"PK\x03\x04")
        # A safetensors file is a length of eight bytes, then JSON; one of torch.save may bear its suffix.
        pickled = zipped or start.startswith(b"\x80")
        if start[8:] == b"{" or (path.suffix == ".safetensors" and not pickled):
            return _read_safetensors(path, file, start)
        if zipped:
            _check_zip(path, file, size)
        return _read_pickled(path, file, start, zipped, size), {}


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """The regular file at `path`, open for reading, and its bytes. Raises FastudaError for anything else, at once.

    What the system refuses, also while the file is open, is raised as UnreadableError.
    """
    try:
        with open_regular(path) as file:
            yield file, os.fstat(file.fileno()).st_size
    except IsADirectoryError as error:
        raise FastudaError(f"{on_one_line(path)}: it is a folder, not a weights file; name the file in it") from error
    except IrregularError as error:
        raise FastudaError(f"{on_one_line(path)}: cannot be read: {error.strerror}") from error
    except (OSError, MemoryError) as error:
        said = (error.strerror or str(error)) if isinstance(error, OSError) else os.strerror(errno.ENOMEM)
        reason = on_one_line(said, 200)
        raise UnreadableError(f"{on_one_line(path)}: cannot be read: {reason}", reason) from error


def _same(file: BinaryIO) -> str:
    """A path to the very file that was looked at. It has no suffix, from which torch.load would take its format."""
    return f"/proc/self/fd/{file.fileno()}"


def _raise_refusal(error: Exception) -> None:
    """Raise an error that is the system's and not the content's: places before a file's start are damage (EINVAL)."""
    if refused := _NOT_MAPPED.search(str(error)):
        raise OSError(int(refused[2]), refused[1]) from error
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
        raise error


def _unreadable(path: Path, error: Exception, reason: str | None = None) -> FastudaError:
    reason = reason or (str(error).strip() or type(error).__name__).splitlines()[0]
    return FastudaError(
        f"{path}: no readable weights ({on_one_line(reason, 200)}); the file is damaged, cut short "
        "or something else than a .safetensors or torch.save file"
    )


def _read_safetensors(path: Path, file: BinaryIO, start: bytes) -> tuple[Mapping[object, object], dict[str, str]]:
    if len(start) >= 8:
        length = struct.unpack("<Q", start[:8])[0]
        if _MOST_HEADER_BYTES < length <= os.fstat(file.fileno()).st_size:
            raise FastudaError(f"{path}: no readable weights: its header has {length} bytes, as no network's has")
    # A disk that fails is an error here; of a file that is mapped it ends the process.
    while file.read(_PART_BYTES):
        pass
    try:
        with safe_open(_same(file), "pt") as archive:
            names = list(archive.keys())
            if len(names) > _MOST_TENSORS:
                raise FastudaError(f"{path}: it holds {len(names)} tensors, more than any network of fastuda's")
            metadata = archive.metadata() or {}
            tensors = {name: archive.get_tensor(name) for name in names}
    except (FastudaError, MemoryError):
        raise
    except FileNotFoundError:  # the library says so of every file that it cannot open
        os.close(os.open(_same(file), os.O_RDONLY))
        raise
    except Exception as error:  # damage can raise anything in the library and in torch
        _raise_refusal(error)
        raise _unreadable(path, error) from error
    verify(tensors, metadata, path)
    return dict(tensors), metadata


def _read_onnx(path: Path, file: BinaryIO, start: bytes, size: int) -> Mapping[object, object]:
    if size > _MOST_ONNX_BYTES:
        raise FastudaError(f"{path}: an ONNX file of {size / 1e9:.1f} GB, which none of fastuda's networks has")
    try:
        convolutions: dict[Any, object] = {**read_onnx(start + file.read())}
        return convolutions
    except FastudaError as error:
        raise FastudaError(f"{path}: {error}") from error


def _check_zip(path: Path, file: BinaryIO, size: int) -> None:
    """Refuse an archive that unpacks to more than it is, and one whose entries are not what was written.

    PyTorch reads without a look at sizes and checksums. The directory must end the file, so that both readers find
    the same one.
    """
    try:
        _check_directory(path, file, size)
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            _check_entries(path, entries, size)
            for entry in entries:
                # A writer that was told not to compute checksums writes zeros.
                if entry.CRC != 0:
                    with archive.open(entry) as content:
                        while content.read(_PART_BYTES):
                            pass
    except (FastudaError, MemoryError):
        raise
    except Exception as error:  # damage can raise anything in zipfile
        _raise_refusal(error)
        raise _unreadable(path, error) from error


def _check_directory(path: Path, file: BinaryIO, size: int) -> None:
    damaged = FastudaError(
        f"{path}: no readable weights (the archive's directory is not at its end); the file is damaged or cut short"
    )
    file.seek(max(0, size - 98))
    tail = file.read().rjust(98, b"\0")
    # The archive's last records, in the order of the file: zip64's end (56 bytes), where that is (20), the end (22).
    if not tail.endswith(b"\0\0") or tail[76:80] != b"PK\x05\x06":
        raise damaged
    entries, length, start = struct.unpack("<HII", tail[86:96])
    end = size - 22
    if tail[56:60] == b"PK\x06\x07":
        end = size - 98
        if tail[:4] != b"PK\x06\x06" or struct.unpack("<Q", tail[64:72])[0] != end:
            raise damaged
        entries, length, start = struct.unpack("<QQQ", tail[32:56])
    if start + length != end:
        raise damaged
    if entries > _MOST_ENTRIES or length > 1000 * _MOST_ENTRIES:
        raise FastudaError(f"{path}: the archive has {entries} entries, more than any network's")


def _check_entries(path: Path, entries: list[zipfile.ZipInfo], size: int) -> None:
    names = [entry.filename for entry in entries]
    if any(name.endswith("/constants.pkl") for name in names):
        raise FastudaError(f"{path}: it is a TorchScript archive, which is a program; save the network's state_dict()")
    packed = next((entry for entry in entries if entry.compress_type != zipfile.ZIP_STORED), None)
    if packed is not None:
        raise FastudaError(
            f"{path}: its entry {on_one_line(packed.filename, 100)} is compressed, as torch.save never does, and "
            f"unpacks to {packed.file_size} bytes; nothing was unpacked. Ask for the file as torch.save wrote it"
        )
    total = sum(max(entry.file_size, entry.compress_size) for entry in entries)
    if total > size or len(set(names)) < len(names):
        raise FastudaError(
            f"{path}: its entries overlap ({total} bytes in a file of {size}); torch.save wrote no such file"
        )
    pickled = next((entry for entry in entries if entry.filename.endswith("data.pkl")), None)
    if pickled is not None and pickled.file_size > _MOST_HEADER_BYTES:
        raise FastudaError(f"{path}: its list of tensors has {pickled.file_size} bytes, as no network's has")


def _read_pickled(path: Path, file: BinaryIO, start: bytes, zipped: bool, size: int) -> Mapping[object, object]:
    try:
        with (
            warnings.catch_warnings(),
            torch.serialization.safe_globals(_NUMPY_SCALARS),
            _memory_at_most(2 * size + _SPARE_BYTES),
        ):
            # torch.load remarks on pickle protocols; whether it could read the file is all that matters.
            warnings.simplefilter("ignore")
            # Mapped, what is not used is not read.
            content = torch.load(_same(file), map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        # PyTorch's own text advises how to run the code after all.
        refused = re.search(r"GLOBAL (\S+)", str(error))
        reason = refused.group(1) if refused else "an unknown instruction"
        if start.startswith((b"PK", b"\x80")):
            raise FastudaError(
                f"{path}: it holds code or Python objects ({on_one_line(reason, 100)}), and none of it was run; only "
                "tensors, numbers and text are read. Ask for the plain state dict or a .safetensors file"
            ) from error
        raise _unreadable(path, error, reason) from error
    except Exception as error:  # a damaged pickle or archive can raise anything
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            raise FastudaError(f"{path}: it asks for far more memory than it has bytes; it was not read") from error
        _raise_refusal(error)
        raise _unreadable(path, error) from error
    if not isinstance(content, Mapping):
        raise FastudaError(f"{path}: it holds a {type(content).__name__}, not a state dict")
    return content


@contextmanager
def _memory_at_most(more: int) -> Iterator[None]:
    """Let the process have only so many bytes more than now: a few bytes of a pickle can ask for all there are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    found = re.search(r"VmData:\s*(\d+) kB", Path("/proc/self/status").read_text("ascii"))
    bound = (int(found.group(1)) << 10) + more if found else soft
    for limit in (soft, hard):
        bound = bound if limit == resource.RLIM_INFINITY else min(bound, limit)
    resource.setrlimit(resource.RLIMIT_DATA, (bound, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
