"""What the library takes, and says, where the caller is Python and no command line."""

from __future__ import annotations

import inspect
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastuda
from fastuda.evaluation.load import load
from fastuda.recipe import Recipe
from fastuda.runs.folder import RunFolder
from fastuda.runtime.device import choose_device
from fastuda_cli.evaluate import evaluate as command


def test_settings_of_a_recipe_are_texts_or_lists_of_them() -> None:
    expected = Recipe.load("gta2cs", "method.tau=0.9", "seed=3")
    assert (expected.method.tau, expected.seed) == (0.9, 3)
    assert Recipe.load("gta2cs", ["method.tau=0.9", "seed=3"]) == expected
    assert Recipe.load("gta2cs", ("method.tau=0.9",), "seed=3") == expected
    with pytest.raises(fastuda.FastudaError, match="did you mean tau"):
        Recipe.load("gta2cs", ["method.taw=0.9"])


def test_errors_are_there_with_the_first_import() -> None:
    code = "import fastuda; print(fastuda.FastudaError is fastuda.errors.FastudaError, fastuda.errors.UsageError)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "True <class 'fastuda.errors.UsageError'>", done.stderr


def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def refusals(weights: Path, tmp_path: Path, recipe: Recipe) -> dict[str, Callable[[], Any]]:
    """What is refused, by what Python says in its place."""
    (tmp_path / "run").mkdir()
    folder = RunFolder(tmp_path / "run")
    folder.begin(recipe, "gta2cs")
    folder.results.touch()
    return {
        "recipe=": lambda: load(weights, recipe="syn2cs", device="cpu"),
        "target=": lambda: fastuda.evaluate(load(weights, device="cpu"), layout="idd", display=False),
        'device="cpu"': lambda: choose_device("cuda"),
        "resume=True": lambda: folder.require(resume=False),
        "(in Python resume=True)": lambda: fastuda.train("gta2cs", tmp_path / "run", force=True),
    }


@pytest.mark.parametrize("word", ["recipe=", "target=", 'device="cpu"', "resume=True", "(in Python resume=True)"])
def test_what_refuses_says_the_option_and_the_argument(
    word: str,
    weights: Path,
    tmp_path: Path,
    tiny_recipe: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    no_gpu(monkeypatch)
    with pytest.raises(fastuda.FastudaError) as caught:
        refusals(weights, tmp_path, tiny_recipe())[word]()
    assert word in str(caught.value)
    assert "in Python" in str(caught.value)
    assert "--" in str(caught.value)


@pytest.mark.parametrize(("name", "value"), [("layout", "idd"), ("split", "test")])
def test_an_argument_is_named_as_both_call_it(name: str, value: str, trained: fastuda.Model, tmp_path: Path) -> None:
    demo = fastuda.load(trained.file, recipe=Recipe.load("gta2cs+cmix", "target.layout=gta5"), device="cpu")
    with pytest.raises(fastuda.errors.UsageError, match=rf"^{name} {value}: "):
        fastuda.evaluate(demo, **{name: value}, display=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("strength", [55, -0.1, float("nan")])
def test_an_overlays_strength_is_a_share(strength: float, trained: fastuda.Model) -> None:
    image = np.full((4, 5, 3), 9, np.uint8)
    labels = np.zeros((4, 5), np.uint8)
    with pytest.raises(ValueError, match=rf"strength {strength:g} came; the colours' share is from 0 to 1"):
        trained.overlay(image, labels, strength=strength)
    assert np.asarray(trained.overlay(image, labels, strength=0)).max() == 9


@pytest.mark.parametrize("package", ["fastuda", "kernels/fastuda_kernels"])
def test_a_caller_sees_the_types_of_both_libraries(package: str) -> None:
    """The marker of PEP 561, in what the wheel takes whole."""
    root = Path(__file__).resolve().parents[1]
    wheel = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert package in wheel["packages"]
    assert (root / package / "py.typed").is_file()


def test_the_split_that_is_scored_by_default_is_the_recipes() -> None:
    assert "None: the one the recipe names (`target.val_split`)" in (inspect.getdoc(fastuda.evaluate) or "")
    shown = str(inspect.signature(command, eval_str=True).parameters["split"].annotation.__metadata__[0].help)
    assert "target.val_split" in shown
