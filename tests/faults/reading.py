"""How tests read a stranger's weights file, and what they expect of a refusal."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from torch import Tensor

from fastuda.errors import FastudaError
from fastuda.evaluation.load import load

TINY = [
    "model.kind=deeplab-v2",
    "model.depth=18",
    "model.width=0.015625",
    "model.aspp=[6,12]",
    "model.input='bgr-caffe'",
]
State = dict[str, Tensor]
STEM, VAR = "backbone.conv1.weight", "backbone.layer2.0.bn1.running_var"


def released(state: State) -> State:
    """Under the keys of released checkpoints, which need no header."""
    names = {
        "backbone.": "",
        "auxiliary_head.branches.": "layer5.conv2d_list.",
        "head.branches.": "layer6.conv2d_list.",
    }
    prefix = {key: next(prefix for prefix in names if key.startswith(prefix)) for key in state}
    return {names[prefix[key]] + key.removeprefix(prefix[key]): value for key, value in state.items()}


def refused(path: Path, *words: str) -> str:
    """The message, of one line that names the file and the words."""
    with pytest.raises(FastudaError) as caught:
        load(path, device="cpu", recipe=None)
    said = str(caught.value)
    assert str(path) in said
    assert "\n" not in said
    assert len(said) < 1500
    for word in words:
        assert word in said
    return said


def special_files(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to-pipe").symlink_to("pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "empty.pth").touch()
    (tmp_path / "empty.safetensors").touch()
    with (tmp_path / "sparse.pth").open("wb") as file:
        file.truncate(1 << 40)
    with (tmp_path / "header.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", 1 << 30) + b"{")
        file.truncate(1 << 33)
    return {
        "pipe": (tmp_path / "pipe", "it is a pipe"),
        "link to a pipe": (tmp_path / "to-pipe", "it is a pipe"),
        "device": (Path("/dev/zero"), "it is a device"),
        "loop": (tmp_path / "loop", "Too many levels of symbolic links"),
        "name too long": (tmp_path / ("x" * 256), "File name too long"),
        "below a file": (tmp_path / "empty.pth" / "w.pth", "Not a directory"),
        "empty": (tmp_path / "empty.pth", "the file is empty"),
        "empty safetensors": (tmp_path / "empty.safetensors", "the file is empty"),
        "terabytes": (tmp_path / "sparse.pth", "it has 1100 GB"),
        "a header of a gigabyte": (tmp_path / "header.safetensors", "its header has 1073741824 bytes"),
    }


SPECIAL = (
    "pipe", "link to a pipe", "device", "loop", "name too long", "below a file", "empty", "empty safetensors",
    "terabytes", "a header of a gigabyte",
)  # fmt: skip
