"""What many tests need: one thread, packed pairs of arrays, a network small enough to train in a moment."""

from __future__ import annotations

import importlib
import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# GNU readline puts them into the environment of the processes that pytest starts; consoles would keep that width.
for _name in ("COLUMNS", "LINES"):
    os.environ.pop(_name, None)

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from steps import small_network
from tiny import NETWORK

from fastuda.data.packing.pack import Packed
from fastuda.data.packing.prepare import prepare
from fastuda.evaluation.load import load
from fastuda.evaluation.model import Model
from fastuda.recipe import Data, Domain, Recipe
from fastuda.recipe.file import load_recipe
from fastuda.runs.checkpoint import save_model

Pixels = NDArray[np.uint8]

# The same examples every time, none shrunk: interpreted kernels take too long to search for the smallest failure.
_PHASES = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
hypothesis.settings.register_profile("quick", max_examples=12, deadline=None, derandomize=True, phases=_PHASES)
hypothesis.settings.load_profile("quick")


def pytest_configure(config: pytest.Config) -> None:
    """Warnings are errors on the builds that are tested everywhere; each GPU build has further ones of its own."""
    if torch.cuda.is_available():
        config.addinivalue_line("filterwarnings", "default")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Processes of `-n auto`: pytest-xdist's own number, or a few on a GPU, whose memory they share."""
    return min(os.cpu_count() or 1, 6) if torch.cuda.is_available() else None


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Convolutions this small spend their time waiting for the other threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def device() -> torch.device:
    """Where the Triton kernels of a test run: a GPU, or the CPU through Triton's interpreter."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Memory that nobody has written yet holds NaN, or the largest integer."""
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.utils.deterministic.fill_uninitialized_memory = before[1]


@pytest.fixture
def kernels_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The public functions choose Triton for every tensor, CPU tensors too."""
    for operation in ("batch_norm", "masked_mix", "pixel_contrast", "pseudo_label", "upsample_cross_entropy"):
        module = importlib.import_module(f"fastuda_kernels.{operation}")
        monkeypatch.setattr(module, "runs_triton", lambda tensor: True)


@pytest.fixture
def pack(tmp_path: Path) -> Callable[..., Packed]:
    """Packs images uint8 [H, W, 3] and labels (train ids) [H, W] as a user's folder would be: named 000, 001, …"""

    def packed(
        recipe: Recipe,
        images: Sequence[Pixels],
        labels: Sequence[Pixels] | None = None,
        *,
        size: tuple[int, int] | None = None,
        format: str = "png",
        own_label_size: bool = False,
        **data: object,
    ) -> Packed:
        root = tmp_path / "files"
        for kind, arrays in (("images", images), ("labels", labels or [])):
            (root / kind).mkdir(parents=True, exist_ok=True)
            for i, pixels in enumerate(arrays):
                Image.fromarray(pixels).save(root / kind / f"{i:03d}.png")
        return prepare(
            Domain(layout="folder", root=root, images="images/*.png", labels="labels/*.png"),
            "train",
            size=size or images[0].shape[1::-1],
            labels="none" if labels is None else "own" if own_label_size else "resized",
            classes=recipe.classes.build(),
            data=Data.model_validate({"cache": tmp_path / "cache", "pack": format, **data}),
            workers=1,
        )

    return packed


@pytest.fixture
def tiny_recipe() -> Callable[..., Recipe]:
    """`gta2cs` with a network of a few thousand weights, 19 classes, and whatever settings are added."""

    def build(*settings: str, preset: str = "gta2cs") -> Recipe:
        tiny = [*NETWORK, "model.width=0.0625", "runtime.loader_threads=1", "eval.size=[64, 32]"]
        return load_recipe(preset, [*tiny, *settings])

    return build


@pytest.fixture
def shallow_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest variants of transformers have a block a stage, or four, and a few features."""
    from fastuda.model.segformer import shape
    from fastuda.model.transformer.vit_shape import SHAPES, ViTShape

    monkeypatch.setitem(shape.SHAPES, "mit-b0", shape.Shape((8, 16, 40, 64), (1, 1, 1, 1)))
    monkeypatch.setitem(SHAPES, "small", ViTShape(48, 4, 3, (0, 1, 2, 3)))


@pytest.fixture
def console_text() -> Callable[[Any], str]:
    """What a rich renderable looks like in a wide log file."""

    def text(renderable: Any) -> str:
        from io import StringIO

        from rich.console import Console

        out = StringIO()
        Console(file=out, width=200).print(renderable)
        return out.getvalue()

    return text


@pytest.fixture
def weights(tmp_path: Path, tiny_recipe: Callable[..., Recipe]) -> Path:
    """A small model file with its recipe."""
    path = tmp_path / "model.safetensors"
    recipe = tiny_recipe()
    save_model(path, small_network(recipe), recipe, {"iteration": 3})
    return path


@pytest.fixture
def trained(weights: Path) -> Model:
    """That model, loaded."""
    return load(weights, device="cpu")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache that a module's runs share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def commands_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`cache` for commands as well, which no recipe tells where it is."""
    monkeypatch.setenv("FASTUDA_CACHE", str(cache))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the smallest pair of drawn domains, `source` and `target`."""
    from commands import drawn_pair

    return drawn_pair(tmp_path_factory.mktemp("drawn") / "demo")


@pytest.fixture
def tiny(cache: Path) -> Callable[..., Recipe]:
    """The demo with a network and data as small as they can be, and whatever settings are added."""
    from whole_runs import TINY

    def build(*settings: str) -> Recipe:
        return load_recipe("demo", [*TINY, f"data.cache={cache}", *settings])

    return build


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, dict[str, Any], str]:
    """A run that nobody stopped: its folder, results and console output."""
    from whole_runs import TINY, run

    path = tmp_path_factory.mktemp("runs") / "whole"
    results, output = run(load_recipe("demo", [*TINY, f"data.cache={cache}"]), path)
    return path, results, output
