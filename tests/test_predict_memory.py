"""How much memory the prediction of a large photograph takes, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from steps import small_network
from tiny import NETWORK

from fastuda.recipe.file import load_recipe
from fastuda.runs.checkpoint import save_model

_MEASURED = """
import sys
from pathlib import Path
from fastuda.evaluation.predict import Input, predict
from fastuda.evaluation.load import load

def peak():
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmHWM"))

weights, out, tiled, *photos = sys.argv[1:]
trained, peaks = load(Path(weights), device="cpu"), []
for photo in photos:
    assert predict(trained, [Input(Path(photo), Path(photo).stem)], Path(out), print, tiled=tiled == "tiled") == []
    peaks.append(peak())
print(peaks[1] - peaks[0])
"""


@pytest.mark.parametrize("mode", ["whole", "tiled"])
def test_memory_grows_by_the_decoded_photograph_alone(tmp_path: Path, mode: str) -> None:
    recipe = load_recipe("demo", [*NETWORK, "model.width=0.0625", "eval.size=[1280, 640]"])
    save_model(tmp_path / "w.safetensors", small_network(recipe), recipe, {})
    exif = Image.Exif()
    exif[0x0112] = 6  # a copy turned upright would be as large again
    size = (8000, 5000) if mode == "whole" else (3000, 2000)
    Image.linear_gradient("L").resize(size).convert("RGB").save(tmp_path / "large.jpg", exif=exif)
    Image.new("RGB", (1281, 641)).save(tmp_path / "small.jpg")
    photos = [str(tmp_path / f"{name}.jpg") for name in ("small", "large")]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, str(tmp_path / "w.safetensors"), str(tmp_path / "out"), mode, *photos],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) < 4 * size[0] * size[1] + 150_000_000
    with Image.open(tmp_path / "out/large_labelIds.png") as label:
        assert label.size == size[::-1]
