"""`python -m faults.long`, from `tests/`: runs the parts named, or all, and writes what they showed.

The results go to `bench/results/faults.json`, of which `fastuda bench figures` makes the table in
`docs/reliability.md`; parts that were not run keep their last results.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: many small commands at a time

import argparse
import json
import sys
from pathlib import Path

from faults.long.checkpoints import checkpoints
from faults.long.disks import full, vanishing
from faults.long.endurance import demo, endurance
from faults.long.fuzz import fuzz
from faults.long.kills import kills
from faults.long.packed import packed
from faults.long.parts import Part
from faults.long.signals import signals
from faults.long.steps import steps
from faults.long.strangers import images, recipes, weights

from fastuda.files.disk import write_atomic
from fastuda_bench.results import stamp

PARTS = (
    Part("kills", "`kill -9` in every phase; gone on with, the run ends as one that nobody killed", 200, kills),
    Part("steps", "`--resume` at every step of a run of 60; the same end, bit for bit", 60, steps),
    Part(
        "signals",
        "TERM, INT, USR1 in every phase; exit code 75 within 2 s and an iteration, the same end",
        90,
        signals,
    ),
    Part("checkpoints", "the newest checkpoint damaged; named, its elder used, the same end", 250, checkpoints),
    Part("packs", "a pack damaged; told, made anew, the same end", 57, packed),
    Part("full-disks", "a disk full at every write; one message that names the file, then the same end", 128, full),
    Part("vanishing", "folders read-only or deleted in every phase; one message, then the same end", 28, vanishing),
    Part("images", "mutated images and labels through `data check` and `predict`", 1000, images),
    Part("recipes", "mutated recipes through `train`", 1000, recipes),
    Part("weights", "mutated weights and checkpoints through `predict`, `eval` and `train`", 1000, weights),
    Part("fuzzing", "the readers of images, recipes and weights fuzzed, minutes", 10, fuzz),
    Part("endurance", "tiny iterations of one run; memory, descriptors and threads stay", 5000, endurance),
    Part("demo", "the demo; below 2 % of its time lost to checkpoints", 1, demo),
)
_RESULTS = Path(__file__).parents[3] / "bench" / "results" / "faults.json"


def main() -> None:
    """Run what the command line asks for; the exit code is 1 where something failed."""
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(prog="python -m faults.long", description=__doc__)
    parser.add_argument("parts", nargs="*", default=names, help=f"of {', '.join(names)}; all by default")
    parser.add_argument("--share", type=float, default=1.0, help="of the tries; results of fewer are not written")
    parser.add_argument("--out", type=Path, default=_RESULTS)
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(names):
        parser.error(f"no part is called {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    failed = 0
    for part in PARTS:
        if part.name in asked.parts:
            result = part.result(asked.share)
            failed += result["failed"]
            if asked.share >= 1:
                content = json.loads(asked.out.read_text()) if asked.out.exists() else {}
                content[part.name] = result | stamp(("torch", "nvidia-dali-cuda130", "pillow", "safetensors"))
                ordered = {name: content[name] for name in names if name in content}
                write_atomic(asked.out, json.dumps(ordered, indent=1).encode() + b"\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
