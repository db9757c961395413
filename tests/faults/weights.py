"""Weights files as strangers may send them: one mutation of a sound file a seed."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from faults.archive_mutants import (
    as_released,
    bomb,
    code,
    cycle,
    deep,
    layout,
    odd_keys,
    shared,
    torch_bits,
    torch_cut,
    wide,
)
from faults.weights_file import Base
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from fastuda.model.digest import sealed


def _bits(base: Base) -> bytes:
    data = bytearray(base.data)
    for _ in range(base.dice.choice([1, 1, 1, 20])):
        place = base.dice.randrange(len(data))
        data[place] ^= 1 << base.dice.randrange(8)
        base.said.append(f"byte {place}")
    return bytes(data)


def _header_bits(base: Base) -> bytes:
    data = bytearray(base.data)
    place = base.dice.randrange(8 + struct.unpack("<Q", base.data[:8])[0])
    data[place] ^= 1 << base.dice.randrange(8)
    base.said.append(f"byte {place}")
    return bytes(data)


def _cut(base: Base) -> bytes:
    kept = base.dice.choice([0, 1, 7, 8, 9, base.dice.randrange(len(base.data)), len(base.data) - 1])
    base.said.append(f"{kept} bytes kept")
    return base.data[:kept]


def _more(base: Base) -> bytes:
    return base.data + bytes(base.dice.randrange(1, 100))


def _length(base: Base) -> bytes:
    length = base.dice.choice([0, 1, 2**31, 2**63, 2**64 - 1])
    base.said.append(str(length))
    return struct.pack("<Q", length) + base.data[8:]


def _spliced(base: Base) -> bytes:
    start, stop = sorted(base.dice.randrange(len(base.data)) for _ in range(2))
    return base.data[:start] + base.data[stop:] if base.dice.random() < 0.5 else base.data[start:stop] + base.data


def _declared(base: Base) -> bytes:
    """Tensors that the raw header declares otherwise."""
    length = struct.unpack("<Q", base.data[:8])[0]
    header = json.loads(base.data[8 : 8 + length])
    key = base.weight()
    change: dict[str, Any] = base.dice.choice(
        [
            {"shape": [0, 2**62]}, {"shape": [2**40, 2**40]}, {"shape": [-1]}, {"shape": []}, {"shape": "3"},
            {"dtype": "I8"}, {"dtype": "F8_E4M3"}, {"dtype": "X"}, {"data_offsets": [0, 2**60]},
            {"data_offsets": [4, 0]}, {"dtype": "F64"},
        ]
    )  # fmt: skip
    base.said.append(f"{key} {change}")
    header[key] |= change
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + base.data[8 + length :]


_FIELDS = ("input", "stride_on", "pool_padding", "aspp")
_WRONG: tuple[Any, ...] = (
    None, True, -1, 2, 1.0, 1e400, 10**400, "", "7x7", "x" * 100_000, [], [0], [-6], [6.5], [True], [2**70], ["6"],
    [6] * 10_000, [[6, 12]], {}, {"a": 1},
)  # fmt: skip


def _field_missing(base: Base) -> bytes:
    network = json.loads(base.metadata["model"])
    base.said.append(name := base.dice.choice(_FIELDS))
    del network[name]
    base.metadata["model"] = json.dumps(network)
    return base.written()


def _field_unknown(base: Base) -> bytes:
    base.said.append(name := base.dice.choice(["depth", "Aspp", "a\nb", "x" * 10_000, ""]))
    base.metadata["model"] = json.dumps({**json.loads(base.metadata["model"]), name: 1})
    return base.written()


def _field_wrong(base: Base) -> bytes:
    name, value = base.dice.choice(_FIELDS), base.dice.choice(_WRONG)
    base.said.append(f"{name} = {str(value)[:40] if not isinstance(value, int) else value % 1000}")
    base.metadata["model"] = json.dumps({**json.loads(base.metadata["model"]), name: value})
    return base.written()


_TEXTS = ("", "{", "null", "[]", "3", '"x"', "[" * 100_000, '{"a":' * 50_000, "\0", "9" * 5000, "NaN", "\ud7ff\n")


def _model_text(base: Base) -> bytes:
    base.metadata["model"] = base.dice.choice(_TEXTS)
    base.said.append(base.metadata["model"][:20])
    return base.written()


_RECIPES = (
    "", "[", "x = ", "a = 1\na = 2", "seed = " + "9" * 5000, "a = " + "[" * 100_000, "a = " + "{a=" * 100_000,
    "[" + "a." * 20_000 + "a]", "[nowhere]\nx = 1", "seed = 'x'", "[model]\ndepth = 19", "[classes]\nnames = 3",
    "[classes]\nnames = []", "[classes]\npreset = 'no'", "seed = nan", "classes = 3", "a = 1979-05-27T07:32:00Z",
    "[data.source]\nlayout = 3", "\0", "[model]\nwidth = inf", "description = '\x1b'",
)  # fmt: skip


def _recipe(base: Base) -> bytes:
    text = base.dice.choice([*_RECIPES, base.metadata.get("recipe", "")[: base.dice.randrange(1, 300)]])
    base.said.append(text[:30])
    base.metadata["recipe"] = text
    return base.written()


def _seal(base: Base) -> bytes:
    key, value = base.dice.choice([("sha256", "0" * 64), ("sha256", ""), ("sealed", ""), ("sealed", "2")])
    base.said.append(f"{key} {value}")
    header = sealed(base.tensors, {**base.metadata, "notes": "{}"}) | {key: value}
    return save(base.tensors, header)


def _value(base: Base) -> bytes:
    key = base.weight()
    value = base.dice.choice([float("nan"), float("inf"), -float("inf"), 1e300])
    kept = base.tensors[key].double() if value == 1e300 else base.tensors[key].clone()
    kept.view(-1)[base.dice.randrange(kept.numel())] = value
    base.tensors[key] = kept
    base.said.append(f"{key} {value}")
    return base.written()


def _variance(base: Base) -> bytes:
    key = base.dice.choice([key for key in base.tensors if key.endswith("running_var")])
    base.tensors[key] = -base.tensors[key].abs() - 1e-3
    base.said.append(key)
    return base.written()


_DTYPES = (torch.int8, torch.bool, torch.uint8, torch.int64, torch.complex64, torch.float8_e4m3fn)


def _dtype(base: Base) -> bytes:
    key, dtype = base.weight(), base.dice.choice(_DTYPES)
    base.tensors[key] = base.tensors[key].to(dtype)
    base.said.append(f"{key} {dtype}")
    return base.written()


def _narrow(base: Base) -> bytes:
    """Every tensor in another floating dtype: sound, where the values fit."""
    dtype = base.dice.choice([torch.float16, torch.bfloat16, torch.float64])
    base.tensors = {k: v.to(dtype) if v.is_floating_point() else v for k, v in base.tensors.items()}
    base.said.append(str(dtype))
    return base.written()


def _shape(base: Base) -> bytes:
    key = base.weight()
    value = base.tensors[key]
    value = value if value.ndim else value[None]  # a checkpoint counts in scalars
    changed: dict[str, Tensor] = {
        "scalar": value.flatten()[0], "flat": value.flatten() if value.ndim > 1 else value[0],
        "one more": value[None], "empty": value[:0], "zero and huge": torch.zeros(0, 2**40, dtype=value.dtype),
        "half": value[: max(1, len(value) // 2)], "twice": torch.cat([value, value]), "rank 9": value[(None,) * 5],
    }  # fmt: skip
    name = base.dice.choice(list(changed))
    base.said.append(f"{key} {name}")
    base.tensors[key] = changed[name].clone()
    return base.written()


def _head(base: Base) -> bytes:
    """Heads that disagree: with the header, with one another, in their number of classes."""
    heads = [key for key in base.tensors if "head." in key]
    key = base.dice.choice(heads)
    how = base.dice.choice(["lost", "scalar", "classes", "branch", "auxiliary lost"])
    base.said.append(f"{how} {key}")
    if how == "lost":
        del base.tensors[key]
    elif how == "scalar":
        for head in heads:
            base.tensors[head] = torch.tensor(1.0)
    elif how == "classes":
        base.tensors[key] = torch.zeros(1000, *base.tensors[key].shape[1:])
    elif how == "branch":
        base.tensors["head.branches.99999.weight"] = torch.zeros(1)
    else:
        base.tensors = {k: v for k, v in base.tensors.items() if not k.startswith("auxiliary_head.branches.0")}
    return base.written()


def _keys(base: Base) -> bytes:
    key = base.weight()
    renamed = base.dice.choice(
        [key.upper(), key + "\n\x1b[31m", "x" * 100_000, "backbone.layer1." + "9" * 5000 + ".conv1.weight", ""]
    )
    base.said.append(f"{key} {renamed[:30]!r}")
    base.tensors[renamed] = base.tensors.pop(key).clone()
    return base.written()


def _many(base: Base) -> bytes:
    base.tensors |= {f"backbone.layer{i % 5}.{i}.x": torch.zeros(1) for i in range(25_000)}
    return base.written()


def _sound(base: Base) -> bytes:
    """No fault at all: it has to be read."""
    return base.pickled({"model": as_released(base.tensors)}) if base.dice.random() < 0.5 else base.written()


def _noise(base: Base) -> bytes:
    start = base.dice.choice([b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x04", b"\x10\0\0\0\0\0\0\0{"])
    base.said.append(repr(start))
    return start + base.dice.randbytes(base.dice.randrange(1, 3000))


_KINDS: dict[str, Callable[[Base], bytes]] = {
    "flipped bits": _bits, "flipped bit in the header": _header_bits, "cut short": _cut, "bytes behind": _more,
    "header length": _length, "spliced": _spliced, "declared otherwise": _declared, "field missing": _field_missing,
    "field unknown": _field_unknown, "field wrong": _field_wrong, "model text": _model_text, "recipe": _recipe,
    "seal": _seal, "value": _value, "negative variance": _variance, "dtype": _dtype, "other floats": _narrow,
    "shape": _shape, "head": _head, "keys": _keys, "many tensors": _many, "wide": wide, "layout": layout,
    "cycle": cycle, "shared": shared, "deep": deep, "bomb": bomb, "code": code, "odd keys": odd_keys,
    "torch bits": torch_bits, "torch cut": torch_cut, "noise": _noise, "sound": _sound,
}  # fmt: skip

KINDS = tuple(_KINDS)
"""The kinds of mutation; seed n makes kind n modulo their number."""


def mutated(seed: int, base: Path, out: Path) -> str:
    """Write one mutation of `base`, a model file of fastuda's, to `out`; the same seed makes the same mutation.

    Gives the kind and what was done, as `kind: words`. Every kind occurs within `len(KINDS)` seeds in a row.
    """
    with safe_open(base, "pt") as file:
        tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata())
    kind = KINDS[seed % len(KINDS)]
    made = Base(base.read_bytes(), tensors, metadata, random.Random(seed))
    out.write_bytes(_KINDS[kind](made))
    return f"{kind}: {', '.join(made.said) or 'as it is'}"
