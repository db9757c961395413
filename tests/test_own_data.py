"""docs/own-data.md: its recipe is valid, and its commands run on a small pair that lies as it says."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from fastuda.model.digest import sealed
from fastuda.recipe.file import load_recipe
from fastuda_cli.main import app

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "own-data.md").read_text()
QUICK = [
    *("views.source_size=[64, 32]", "views.target_size=[64, 32]", "views.crop_size=[32, 32]", "eval.size=[64, 32]"),
    *("model.depth=18", "model.width=0.0625", "model.weights=random", "warmup.iterations=2", "train.iterations=2"),
    "runtime.loader_threads=1",
]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    block = re.search(r"<!-- recipe -->\s*```toml\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    path = tmp_path / "mine.toml"
    path.write_text(block[1])
    return path


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    folders = {"streets": ("images", "labels"), "camvid/train": ("images",), "camvid/val": ("images", "labels")}
    for place, kinds in folders.items():
        for kind in kinds:
            (tmp_path / place / kind).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(rng.integers(0, 256, (40, 80, 3), np.uint8)).save(tmp_path / place / f"images/{i:04d}.jpg")
            if "labels" in kinds:
                label = rng.integers(0, 19, (5, 10), np.uint8).repeat(8, 0).repeat(8, 1)
                Image.fromarray(label).save(tmp_path / place / f"labels/{i:04d}.png")
    return tmp_path


def test_the_pages_recipe_is_valid_and_both_domains_use_one_table(recipe: Path) -> None:
    found = load_recipe(str(recipe))
    assert found.source.ids == found.target.ids
    assert set(found.source.ids or {}) == {*range(19), 255}
    assert set((found.source.ids or {}).values()) == {*found.classes.build().names, "ignore"}


def test_every_command_of_the_page_runs_on_a_small_pair(
    recipe: Path, pair: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pair)
    monkeypatch.setenv("FASTUDA_CACHE", str(pair / "cache"))
    (pair / "photos").mkdir()
    Image.new("RGB", (50, 40)).save(pair / "photos" / "a.png")
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    blocks = [block for block in blocks if "/data/" not in block]  # data sets that are not at hand
    (pair / "camvid/train/labels").mkdir()
    for name in ("0001.png", "0003.png"):
        (pair / "camvid/train/labels" / name).write_bytes((pair / "camvid/val/labels" / name).read_bytes())
    (pair / "few.txt").write_text("0001\n0003\n")
    commands = [shlex.split(line.partition(" #")[0]) for block in blocks for line in block.splitlines()]
    assert len(commands) >= 6
    for command in commands:
        assert command[0] == "fastuda"
        trains = command[1] in ("train", "study") and "--resume" not in command
        quick = [part for setting in QUICK for part in ("--set", setting)] if trains or "show" in command else []
        arguments = [argument if argument != "0,1,2" else "0" for argument in command[1:]]
        result = CliRunner().invoke(app, [*arguments, *quick], env={"COLUMNS": "200"})
        assert result.exit_code == 0, f"{' '.join(command)}\n{result.output}"
    assert (pair / "check.html").exists()
    _read_every_class_back(pair)


def _read_every_class_back(folder: Path) -> None:
    """A model that sees one class everywhere, class after class: the files hold what the page's table says."""
    table = re.search(r"<!-- values -->(.*?)<!-- /values -->", PAGE, re.DOTALL)
    assert table is not None
    values = {name: int(value) for name, value in re.findall(r"^\| (\w+) \| (\d+) \|$", table[1], re.MULTILINE)}
    trained = folder / "runs/mine/checkpoints/adapted-last.safetensors"
    state = load_file(trained)
    with safe_open(trained, "pt") as file:
        metadata = file.metadata()
    for train_id, (name, value) in enumerate(values.items()):
        state["head.branches.0.bias"] = torch.where(torch.arange(len(values)) == train_id, 1e4, 0.0)
        save_file(state, folder / "one.safetensors", sealed(state, metadata))
        command = ["predict", "one.safetensors", "photos/", "--out", f"out-{train_id}"]
        result = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
        assert result.exit_code == 0, result.output
        assert "35 bicyclist" in result.output
        with Image.open(folder / f"out-{train_id}/a_labelIds.png") as label:
            assert np.unique(np.asarray(label)).tolist() == [value], name
        classes = json.loads((folder / f"out-{train_id}/classes.json").read_text())["classes"]
        assert {row["name"]: row["value"] for row in classes} == values


def test_fields_that_the_page_names_exist() -> None:
    table = PAGE[PAGE.index("## When adaptation") : PAGE.index("## Use it")]
    for field in re.findall(r"`((?:\w+)\.(?:\w+))(?: = [^`]*)?`", table):
        section, name = field.split(".")
        assert name in type(getattr(load_recipe("gta2cs"), section)).model_fields, field


def test_links_of_the_page_lead_somewhere() -> None:
    for link in re.findall(r"\]\((\.\.?/[^)#]+)", PAGE):
        assert (ROOT / "docs" / link).exists(), link
