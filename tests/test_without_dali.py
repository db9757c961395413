"""What needs no data runs on a machine without DALI, matplotlib and TensorBoard."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fastuda.model.build import build_network
from fastuda.recipe import Recipe
from fastuda.runs.checkpoint import save_model
from fastuda.runs.folder import RunFolder

_SCRIPT = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("nvidia", "matplotlib", "tensorboard"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
from typer.testing import CliRunner
import torch
from fastuda.memory.estimate import estimate_bytes
import fastuda.training.iteration
from fastuda.recipe.file import load_recipe
from fastuda_bench.card import parts, summary
from fastuda_bench import kernels
from fastuda_cli.main import app

folder, trained = sys.argv[1:]
torch.set_num_threads(1)
sizes = ["model.depth=18", "model.width=0.0625", "model.weights=random", "views.crop_size=[32, 32]"]
sizes += ["views.source_size=[64, 32]", "views.target_size=[64, 32]"]
assert estimate_bytes(load_recipe("gta2cs", sizes), torch.device("cpu")) > 0
assert "DALI" in parts._no_dali()

def run(*words):
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 0, (words, result.output, result.exception)
    return result.output

common = ["--device", "cpu", "--json", f"{folder}/out.json"]
said = run("bench", "probe", *common)
limits = ["--limits", f"{folder}/out.json"]
settings = [word for size in sizes for word in ("--set", size)]
rungs = ["--rung", "eager-fp32", "--rung", "amp-nhwc", "--repeats", "1", "--iterations", "1"]
said = run("bench", "step", "gta2cs", "--device", "cpu", *rungs, *settings, *limits, "--chart", f"{folder}/step.png")
assert "no picture, matplotlib cannot be imported" in said, said
run("bench", "kernels", "--device", "cpu", "--small", "--repeats", "1", *limits, "--chart", f"{folder}/bars.png")
run("recipes", "gta2cs")
model = f"{trained}/checkpoints/adapted-last.safetensors"
run("predict", model, f"{folder}/images", "--out", f"{folder}/predictions", "--device", "cpu")
run("predict", trained, f"{folder}/images/b.jpg", "--out", f"{folder}/tiled", "--tiled", "--device", "cpu")
loaded = [name for name in sys.modules if name.split(".")[0] in ("nvidia", "matplotlib", "tensorboard")]
assert not loaded, loaded
"""


def test_steps_kernels_the_estimate_and_predictions_need_none_of_them(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe]
) -> None:
    recipe = tiny_recipe()
    torch.manual_seed(0)
    model = RunFolder(tmp_path / "run").model("adapted", "last")
    model.parent.mkdir(parents=True)
    save_model(model, build_network(recipe), recipe, {})
    (tmp_path / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (48, 96, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png")
    Image.fromarray(pixels).save(tmp_path / "images" / "b.jpg")
    command = [sys.executable, "-c", _SCRIPT, str(tmp_path), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    written = {path.name for path in (tmp_path / "predictions").iterdir()}
    assert written == {"classes.json", *(f"{name}_{kind}.png" for name in "ab" for kind in ("labelIds", "overlay"))}
    assert (tmp_path / "tiled" / "b_labelIds.png").exists()
