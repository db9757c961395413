"""Weights on Hugging Face's hub: which file is asked for, and what is said when it cannot be had."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from mix_transformer_files import as_library_published, mit_b0
from safetensors.torch import save_file

from fastuda.errors import FastudaError
from fastuda.model import library as library_module
from fastuda.model.build import build_model
from fastuda.recipe import Recipe
from fastuda.recipe.file import load_recipe

Asked = list[tuple[str, str]]


def recipe(*settings: str) -> Recipe:
    return load_recipe("gta2cs", ["model.kind=segformer", "model.variant=mit-b0", *settings])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Path | Exception]], Asked]:
    """A hub that has these files, or raises; what it was asked for."""

    def put(files: dict[str, Path | Exception]) -> Asked:
        seen: Asked = []

        def download(repository: str, file: str, *, local_files_only: bool) -> str:
            # Once it could not be reached, it is not asked again.
            assert local_files_only == any(isinstance(files.get(one), LocalEntryNotFoundError) for _, one in seen)
            seen.append((repository, file))
            found = files.get(file, EntryNotFoundError(f"no {file}"))
            if isinstance(found, Exception):
                raise found
            return str(found)

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
        return seen

    return put


@pytest.mark.parametrize(
    ("weights", "repository"), [("imagenet", "nvidia/mit-b0"), ("hub:someone/mit-b0-else", "someone/mit-b0-else")]
)
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_the_start_is_the_repositorys_file(
    file: str, weights: str, repository: str, asked: Callable[..., Asked], tmp_path: Path
) -> None:
    state = as_library_published(mit_b0())
    if file.endswith("bin"):
        torch.save(state, tmp_path / file)
    else:
        save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / file)
    seen = asked({file: tmp_path / file})
    model, _ = build_model(recipe(f"model.weights={weights}"), tmp_path)
    assert seen == [(repository, one) for one in ("model.safetensors", "pytorch_model.bin")[: len(seen)]]
    assert seen[-1] == (repository, file)
    key = "stages.3.blocks.1.mlp.fc1.weight"
    assert torch.equal(model.state_dict()[f"backbone.{key}"], state["segformer.encoder.block.3.1.mlp.dense1.weight"])


REFUSED: Any = SimpleNamespace(headers={}, request=None)
"""What such an error reads of the hub's answer."""


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (lambda: GatedRepoError("gated", response=REFUSED), "accepted its licence on its page"),
        (lambda: RepositoryNotFoundError("no such", response=REFUSED), "no such"),
        (lambda: LocalEntryNotFoundError("outgoing traffic has been disabled"), "outgoing traffic has been disabled"),
        (lambda: OSError("no route to host"), "no route to host"),
    ],
)
def test_what_cannot_be_had_says_what_to_fetch_and_where_to_put_it(
    error: Callable[[], Exception], why: str, asked: Callable[..., Asked], tmp_path: Path
) -> None:
    asked({"model.safetensors": error(), "pytorch_model.bin": EntryNotFoundError("no other")})
    with pytest.raises(FastudaError, match=r"hf download nvidia/mit-b0 --local-dir FOLDER") as raised:
        build_model(recipe(), tmp_path)
    assert why in str(raised.value)
    assert "--set model.weights=FOLDER" in str(raised.value)
    assert "--set model.weights=random" in str(raised.value)


def test_offline_nothing_is_waited_for(tmp_path: Path) -> None:
    """In a process of its own, in which nobody imported any of the library."""
    code = "from fastuda.model.hub import fetch_from_hub; fetch_from_hub('facebook/dinov2-small')"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert "FastudaError: facebook/dinov2-small: its weights cannot be had from the hub" in done.stderr
    assert "hf download facebook/dinov2-small --local-dir FOLDER" in done.stderr


@pytest.mark.parametrize("name", ["mit-b0", "nvidia/mit/b0", "../nvidia/mit-b0", ""])
def test_a_name_that_is_none(name: str, tmp_path: Path) -> None:
    with pytest.raises(FastudaError, match=r"names no repository of the hub; write hub:ORG/NAME"):
        build_model(recipe(f"model.weights=hub:{name}"), tmp_path)


@pytest.mark.parametrize(
    ("missing", "settings"), [("transformers", []), ("peft", ["model.lora=2"]), ("huggingface_hub", [])]
)
def test_a_missing_library_is_named_with_its_extra(
    missing: str, settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imports = library_module.import_module

    def without(module: str) -> object:
        if module.split(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named '{missing}'")
        return imports(module)

    monkeypatch.setattr(library_module, "import_module", without)
    weights = "imagenet" if missing == "huggingface_hub" else "random"
    with pytest.raises(FastudaError, match=rf"library {missing}, .*: pip install 'fastuda\[transformers\]'"):
        build_model(recipe(*settings, f"model.weights={weights}"), tmp_path)
