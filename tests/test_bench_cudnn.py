"""The probe of cuDNN's fused graphs: rows that say why not, and what a supported one is held against."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from typer.testing import CliRunner

from fastuda_bench import cudnn_graphs
from fastuda_bench.cudnn_graphs import MISSING, NO_GPU, SHAPES, Shape, cudnn_rows, missing, table_of
from fastuda_cli.main import app

CPU = torch.device("cpu")


def test_without_a_gpu_or_the_package_every_row_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "cudnn.json"
    result = CliRunner().invoke(app, ["bench", "cudnn", "--device", "cpu", "--json", str(out)])
    assert result.exit_code == 0, result.output
    assert NO_GPU in result.output
    rows = json.loads(out.read_text())
    assert [(row["supported"], row["reason"]) for row in rows] == [(None, NO_GPU)] * 12
    assert rows[-1]["size"] == "3×3 512→512 dilation 4, 6×65×65"
    assert all(shape.padding == shape.dilation * (shape.kernel == 3) for shape in SHAPES)
    monkeypatch.setattr(cudnn_graphs.importlib.util, "find_spec", lambda name: None)
    assert missing(torch.device("cuda")) == MISSING


class Fused:
    """Stands in for cuDNN's graph: right, but for what `spoil` does to the results."""

    spoil: Callable[[list[Tensor]], None]

    def __init__(self, shape: Shape, image: Tensor, weight: Tensor, scale: Tensor, bias: Tensor) -> None:
        out = F.conv2d(torch.relu(image * scale + bias), weight, padding=shape.padding, dilation=shape.dilation)
        sums = out.float().sum((0, 2, 3), keepdim=True), out.float().square().sum((0, 2, 3), keepdim=True)
        self.results = [out, *sums]
        type(self).spoil(self.results)

    def __call__(self) -> None:
        pass


def nothing(results: list[Tensor]) -> None:
    pass


def squares_off(results: list[Tensor]) -> None:
    results[2] += results[2].max()


def unsupported(results: list[Tensor]) -> None:
    raise RuntimeError("No valid engine configs\nfor this graph")


@pytest.mark.parametrize(
    ("spoil", "supported", "said"),
    [(nothing, True, "yes"), (squares_off, True, "sums of squares differ"), (unsupported, False, "No valid engine")],
)
def test_a_shape_is_supported_wrong_or_not_supported(
    spoil: Callable[[list[Tensor]], None],
    supported: bool,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    console_text: Any,
) -> None:
    monkeypatch.setattr(cudnn_graphs, "SHAPES", (Shape(3, 4, 8, 2, (2, 5, 6)),))
    monkeypatch.setattr(cudnn_graphs, "missing", lambda device: None)
    monkeypatch.setattr(cudnn_graphs, "_Fused", Fused)
    monkeypatch.setattr(Fused, "spoil", staticmethod(spoil), raising=False)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    (row,) = cudnn_rows(CPU, repeats=1)
    assert row["supported"] is supported
    assert (row["fused"] is not None) is supported
    assert row["unfused"]["median"] > 0
    assert ("disagreement" in row) == (spoil is squares_off)
    assert said in console_text(table_of([row]))
