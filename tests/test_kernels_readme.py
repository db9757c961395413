"""kernels/README.md: its examples run and give what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

KERNELS = Path(__file__).resolve().parents[1] / "kernels"
README = (KERNELS / "README.md").read_text()


def results_of(heading: str) -> dict[str, Any]:
    """The names that the example under a heading leaves behind."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", README, re.S | re.M)
    assert section is not None, f"kernels/README.md has no section {heading}"
    (example,) = re.findall(r"```python\n(.*?)```", section.group(1), re.S)
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    exec(compile(example, f"kernels/README.md, {heading}", "exec"), names)
    return names


def test_every_operation_has_a_section() -> None:
    operations = {path.parent.name for path in KERNELS.glob("fastuda_kernels/*/__init__.py")}
    assert operations == set(re.findall(r"^## (\w+)$", README, re.M)) - {"Files", "Measured", "Resources"}


def test_the_contrast_example() -> None:
    names = results_of("pixel_contrast")
    assert names["loss"].shape == ()
    assert names["first"].grad.abs().max() > 0


def test_the_cross_entropy_example() -> None:
    assert results_of("upsample_cross_entropy")["logits"].grad.abs().max() > 0


def test_the_pseudo_label_example() -> None:
    names = results_of("pseudo_label")
    assert names["label"].shape == names["confidence"].shape == (1, 512, 512)
    assert names["confusion"].sum() == 1024 * 2048


def test_the_mixing_example() -> None:
    names = results_of("masked_mix")
    assert names["mixed"].hts.shape == (2, 3, 512, 512)
    assert names["chosen"].sum(1).tolist() == [9, 9]


def test_the_batch_norm_example() -> None:
    names = results_of("batch_norm")
    assert names["y"].shape == (4, 64, 33, 33)
    assert names["y"].min() == 0
    assert names["x"].grad.abs().max() > 0
    assert names["running_mean"].any()


def test_every_operation_has_both_implementations_that_the_page_speaks_of() -> None:
    for path in KERNELS.glob("fastuda_kernels/*/__init__.py"):
        assert {"reference.py", "triton.py"} <= {file.name for file in path.parent.iterdir()}
