"""Launches and bytes are counted from traced graphs: they move as the rungs and the batch say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from typer.testing import CliRunner

from fastuda.recipe_file import load_recipe
from fastuda_bench import launches
from fastuda_bench.eager_tally import EagerTally, _launches_of_lists
from fastuda_bench.tally import Tally
from fastuda_cli.main import app

SIZES = [
    "model.depth=18",
    "model.width=0.125",
    "model.weights=random",
    "views.source_size=[64, 48]",
    "views.target_size=[64, 32]",
    "views.crop_size=[32, 32]",
]
_SMALL = """
import gc, json, sys, warnings
gc.disable()
warnings.simplefilter("ignore")
from dataclasses import asdict
from fastuda.model import resnet
from fastuda.recipe import Recipe
from fastuda_bench.ladder import RUNGS, recipe_at
from fastuda_bench.traced_step import traced_step
resnet.BLOCKS[18] = (1, 1, 1, 1)
rung = next(one for one in RUNGS if one.name == sys.argv[1])
print(json.dumps(asdict(traced_step(recipe_at(Recipe.model_validate_json(sys.stdin.read()), rung)))))
"""
