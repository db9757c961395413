"""A sound weights file of a very small network, what it holds, and an end for tests that wait for ever."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from faults.reading import TINY, State
from safetensors import safe_open

from fastuda.model.build import build_network
from fastuda.model.weights import read_weights
from fastuda.recipe import Recipe
from fastuda.recipe.file import load_recipe
from fastuda.runs.checkpoint import save_model


@pytest.fixture
def no_hang() -> Iterator[None]:
    """A test that waits for a pipe, say, fails after a minute instead."""

    def late(*_: object) -> None:
        raise AssertionError("this takes for ever")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("demo", TINY)


@pytest.fixture(scope="module")
def base(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "sound.safetensors"
    torch.manual_seed(1)
    save_model(path, build_network(recipe), recipe, {})
    return path


@pytest.fixture
def state(base: Path) -> State:
    """The sound file's tensors, to be spoilt."""
    return {key: value.clone() for key, value in read_weights(base).state.items()}


@pytest.fixture
def header(base: Path) -> dict[str, str]:
    with safe_open(base, "pt") as file:
        metadata: dict[str, str] = file.metadata()
    return {key: value for key, value in metadata.items() if key in ("model", "recipe")}
