"""The checksum of a file: any change of a name, a value or the header's text is another one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from fastuda.errors import FastudaError
from fastuda.model import digest as module
from fastuda.model.digest import MODEL_FORMAT, digest, sealed, verify

METADATA = {"notes": "{}", "recipe": "é\n"}


def tensors() -> dict[str, Tensor]:
    return {
        "weight": torch.arange(24, dtype=torch.float32).reshape(2, 3, 4),
        "half": torch.arange(5, dtype=torch.bfloat16),
        "count": torch.tensor(7),
        "nothing": torch.zeros(0, 3),
    }


def changed(key: str, value: Tensor) -> dict[str, Tensor]:
    return {**tensors(), key: value}


def test_the_checksum_is_of_the_content_alone_not_of_order_or_memory() -> None:
    reference = digest(tensors(), METADATA)
    assert len(reference) == 64
    assert digest(dict(reversed(tensors().items())), dict(reversed(METADATA.items()))) == reference
    strided = changed("weight", tensors()["weight"].mT.contiguous().mT)
    assert digest(strided, METADATA) == reference
    assert digest(changed("weight", tensors()["weight"].requires_grad_()), METADATA) == reference
    assert digest(tensors(), {**METADATA, "sha256": "x"}) == reference


@pytest.mark.parametrize(
    "other",
    [
        changed("half", torch.tensor([0, 1, 2, 3, 4.03125], dtype=torch.bfloat16)),
        changed("weight", tensors()["weight"].reshape(3, 2, 4)),
        changed("weight", tensors()["weight"].view(torch.int32)),
        changed("count", torch.tensor(8)),
        changed("nothing", torch.zeros(0, 4)),
        changed("more", torch.zeros(0)),
        {key.replace("half", "haLf"): value for key, value in tensors().items()},
        {key: value for key, value in tensors().items() if key != "nothing"},
    ],
    ids=["bit", "shape", "dtype", "scalar", "empty", "more", "name", "less"],
)
def test_any_other_tensor_is_another_checksum(other: dict[str, Tensor], tmp_path: Path) -> None:
    header = sealed(tensors(), METADATA)
    verify(tensors(), header, tmp_path)
    with pytest.raises(FastudaError, match=r"w\.safetensors: damaged: its content is not what was written \(SHA-256"):
        verify(other, header, Path("w.safetensors"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("notes", "{ }"), ("recipe", None), ("more", ""), ("sha256", None), ("sealed", None), ("sealed", "0"),
        ("sha256", ""), ("sha256", "\ud800\n"), ("format", MODEL_FORMAT),
    ],
)  # fmt: skip
def test_any_other_text_of_the_header_is_found(key: str, value: str | None, tmp_path: Path) -> None:
    header = {name: text for name, text in {**sealed(tensors(), METADATA), key: value}.items() if text is not None}
    with pytest.raises(FastudaError, match="damaged: its content is not what was written") as caught:
        verify(tensors(), header, tmp_path / "w.safetensors")
    assert "\n" not in str(caught.value)


def test_files_from_before_pass_unless_their_format_requires_a_checksum(tmp_path: Path) -> None:
    verify(tensors(), METADATA, tmp_path)
    verify(tensors(), sealed(tensors(), {**METADATA, "format": MODEL_FORMAT}), tmp_path)
    with pytest.raises(FastudaError, match="header has lost `sha256`"):
        verify(tensors(), {**METADATA, "format": MODEL_FORMAT}, tmp_path)


def test_the_seal_is_renewed_not_kept() -> None:
    once = sealed(tensors(), METADATA)
    assert sealed(tensors(), once) == once
    assert sealed(changed("count", torch.tensor(8)), once)["sha256"] != once["sha256"]


def test_chunks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = digest(tensors(), METADATA)
    monkeypatch.setattr(module, "_CHUNK_BYTES", 7)
    assert digest(tensors(), METADATA) == whole


def test_every_single_flipped_bit_of_a_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    small = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor(3)}
    save_file(small, path, sealed(small, {"n": "1"}))
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            with safe_open(path, "pt") as file:
                read, header = {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
        except Exception:
            continue  # no safetensors file any more
        with pytest.raises(FastudaError, match="damaged"):
            verify(read, header, path)
