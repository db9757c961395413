"""What can be wrong with a file of `torch.save`: one damaged file a call."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import torch
from faults.weights_file import Base, Code, torch_bytes
from torch import Tensor


def wide(base: Base) -> bytes:
    """A width that asks for terabytes, at no cost in the file."""
    first = "backbone.layer1.0.conv1.weight"
    huge = base.dice.choice([129, 10**6, 10**9])
    base.tensors[first] = torch.zeros(1).expand(huge, *base.tensors[first].shape[1:])
    base.said.append(str(huge))
    return torch_bytes(as_released(base.tensors), zipped=base.dice.random() < 0.5)


def as_released(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Under the names of released checkpoints, which need no header."""
    names = {
        "backbone.": "",
        "auxiliary_head.branches.": "layer5.conv2d_list.",
        "head.branches.": "layer6.conv2d_list.",
    }
    released = {}
    for key, value in tensors.items():
        prefix = next((prefix for prefix in names if key.startswith(prefix)), "")
        released[names.get(prefix, "") + key.removeprefix(prefix)] = value
    return released


def layout(base: Base) -> bytes:
    state: dict[str, Any] = as_released(base.tensors)
    key = base.dice.choice([key for key, value in state.items() if value.is_floating_point()])
    value = state[key]
    changed: dict[str, Callable[[], Any]] = {
        "sparse": value.to_sparse, "meta": lambda: value.to("meta"), "complex": lambda: value.to(torch.complex64),
        "quantised": lambda: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
        "expanded": lambda: torch.zeros(1).expand(value.shape), "list": lambda: [value],
        "storage": lambda: value.untyped_storage(), "overlapping": lambda: torch.zeros(99).as_strided((9, 9), (1, 1)),
    }  # fmt: skip
    name = base.dice.choice(list(changed))
    base.said.append(f"{key} {name}")
    state[key] = changed[name]()
    return base.pickled(state)


def cycle(base: Base) -> bytes:
    content: dict[str, Any] = {"state_dict": as_released(base.tensors)}
    content[base.dice.choice(["model", "ema", "x"])] = content
    return base.pickled(content)


def shared(base: Base) -> bytes:
    """Dictionaries that hold the next one twice: 2^n paths."""
    level: dict[str, Any] = as_released(base.tensors) if base.dice.random() < 0.5 else {"a": 1}
    depth = base.dice.choice([20, 40, 60])
    names = base.dice.choice([("model", "ema"), ("a", "b")])
    for _ in range(depth):
        level = dict.fromkeys(names, level)
    base.said.append(f"{depth} deep")
    return base.pickled(level)


def deep(base: Base) -> bytes:
    """Dictionaries, lists or tuples in one another, more than an interpreter's stack."""
    opening, closing = base.dice.choice([(b"}X\x05\x00\x00\x00model", b"s"), (b"]", b"a"), (b"", b"\x85")])
    depth = 30_000
    pickled = b"\x80\x02" + opening * depth + b"N" + closing * depth + b"."
    base.said.append(repr(opening[:1]))
    return _zip({"archive/data.pkl": pickled, "archive/version": b"3\n", "archive/byteorder": b"little"})


def _zip(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def bomb(base: Base) -> bytes:
    """An archive or a pickle that asks for far more memory than it has bytes."""
    how = base.dice.choice(["deflated", "bytearray", "overlap", "storage"])
    base.said.append(how)
    if how == "deflated":
        return _zip({"archive/data.pkl": bytes(20_000_000), "archive/version": b"3\n"}, zipfile.ZIP_DEFLATED)
    if how == "storage":
        whole = torch_bytes({"a": torch.zeros(77777)}, zipped=False)
        return whole.replace(pickle.dumps(77777, 2)[2:-1], b"\x8a\x06\0\0\0\0\0\x20")
    if how == "bytearray":
        number = pickle.dumps(2**45, 2)[2:-1]
        return _zip({"a/data.pkl": b"\x80\x02c__builtin__\nbytearray\n" + number + b"\x85R.", "a/version": b"3\n"})
    whole = torch_bytes({str(i): torch.rand(100) for i in range(40)})
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        size = len(whole) // 2
    start = whole.index(b"PK\x01\x02")
    place = start
    changed = bytearray(whole)
    for _ in archive.infolist():
        changed[place + 20 : place + 28] = struct.pack("<II", size, size)
        name, extra, comment = struct.unpack("<HHH", changed[place + 28 : place + 34])
        place += 46 + name + extra + comment
    return bytes(changed)


def code(base: Base) -> bytes:
    content = {"state_dict": as_released(base.tensors), "extra": Code()}
    if base.dice.random() < 0.3:
        return pickle.dumps(Code(), base.dice.choice([0, 2, 4]))
    return base.pickled(content)


def odd_keys(base: Base) -> bytes:
    key: Any = 1
    for _ in range(base.dice.choice([0, 1, 5000])):
        key = (key,)
    if isinstance(key, tuple) and key != (1,):
        key = "\udc80" * 3
    content: dict[Any, Any] = {**as_released(base.tensors), key: torch.ones(1), None: 1, 2.5: torch.ones(1)}
    return base.pickled(content if base.dice.random() < 0.5 else {"model": content})


def torch_bits(base: Base) -> bytes:
    data = bytearray(base.pickled({"model": as_released(base.tensors)}))
    for _ in range(base.dice.choice([1, 1, 30])):
        place = base.dice.randrange(len(data))
        data[place] ^= 1 << base.dice.randrange(8)
        base.said.append(f"byte {place}")
    return bytes(data)


def torch_cut(base: Base) -> bytes:
    data = base.pickled({"model": as_released(base.tensors)})
    return data[: base.dice.randrange(len(data))]
