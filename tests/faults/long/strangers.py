"""Files of strangers, a mutation a try, through the real commands: one line or an answer, in bounded time."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from faults import images as mutated_images
from faults import recipes as mutated_recipes
from faults import weights as mutated_weights
from faults.long.commands import CANARY, HANG_SECONDS, Outcome, room, run
from faults.long.parts import Try, spread
from faults.long.undisturbed import Undisturbed, undisturbed
from faults.runs import arguments
from PIL import Image

from fastuda.runs.checkpoint.store import CheckpointStore

_MOST_MIB = 3072
"""Resident memory that a command may take: the interpreter with torch takes 600 MiB of it."""
_MOST_CHARACTERS = 3000
_COMPILED_SECONDS = 600.0
"""A recipe may ask for a network that is compiled, which the command says and which takes minutes on two cores."""
_FRESH = 50
"""Of so many tries one is a process that began with nothing imported, as a user's is."""
_OF_MODELS = ("field missing", "field unknown", "field wrong", "model text", "wide")
"""Kinds of mutation that a checkpoint has no place for; it has a bit flipped instead."""
_base: Undisturbed


def images(tries: int) -> Iterator[Try]:
    """A folder of sound pairs and a mutated file: checked, and, where it is an image, predicted."""
    with _trained():
        yield from spread(_image, range(tries))


def recipes(tries: int) -> Iterator[Try]:
    """A mutated recipe: said by `fastuda recipes`, trained unless it is one."""
    with _trained():
        yield from spread(_recipe, range(tries))


def weights(tries: int) -> Iterator[Try]:
    """A mutated model file: predicted with, scored, trained from; every third is a checkpoint that is resumed from."""
    with _trained():
        yield from spread(_weights, range(tries))


@contextlib.contextmanager
def _trained() -> Iterator[None]:
    """A run whose checkpoints and models are there to be mutated, and a photograph beside it."""
    global _base
    with undisturbed("train.checkpoints_kept=3") as _base:
        dice = np.random.default_rng(0)
        Image.fromarray(dice.integers(0, 256, (32, 64, 3), np.uint8)).save(_base.place / "photograph.png")
        yield


def _asked(seed: int, command: Sequence[str], place: Path, limit: float = HANG_SECONDS) -> Outcome:
    """The outcome; of some seeds in a process of its own from the beginning."""
    if seed % _FRESH != _FRESH - 1:
        return run(command, place, _base.environment, limit)
    began = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "fastuda_cli.main", *command], cwd=place, env={**os.environ, **_base.environment},
            capture_output=True, timeout=limit, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Outcome(-9, "", limit, 0, hung=True)
    return Outcome(
        done.returncode, (done.stdout + done.stderr).decode(errors="backslashreplace"), time.monotonic() - began, 0
    )


def _judged(kind: str, seed: int, outcome: Outcome, place: Path, more: Callable[[Outcome], str | None]) -> Try:
    fault = outcome.fault(memory_mib=_MOST_MIB) or more(outcome)
    if list(place.rglob(CANARY)):
        fault = "code was run"
    if fault:
        fault = f"seed {seed}: {fault}: {outcome.said()}"
    return Try(kind, fault, {"seconds": outcome.seconds, "MiB": outcome.peak_mib})


def _short(outcome: Outcome) -> str | None:
    """A message is short, and nothing in it acts on a terminal."""
    if outcome.code and len(outcome.output) > _MOST_CHARACTERS:
        return f"{len(outcome.output)} characters"
    acting = [character for character in outcome.output if not character.isprintable() and character not in "\n\t"]
    return f"unprintable characters {acting[:3]!r}" if acting else None


def _image(seed: int) -> list[Try]:
    with room() as place:
        pairs = place / "pairs"
        (mutant,) = mutated_images.data_set([seed], pairs)
        recipe = str(pairs / "recipe.toml")
        check = ["data", "check", "folder", str(pairs), "--recipe", recipe, "--domain", "source"]
        tries = [_judged(mutant.kind, seed, _asked(seed, check, place), place, _short)]
        if not mutant.is_label:
            predict = ["predict", str(_base.run), str(pairs / "images"), "--out", str(place / "out")]
            outcome = _asked(seed, [*predict, "--device", "cpu"], place)
            tries.append(_judged(mutant.kind, seed, outcome, place, _short))
        return [Try(one.kind, one.fault, one.numbers, int(one is tries[0])) for one in tries]


def _recipe(seed: int) -> list[Try]:
    """Trained where it is refused or as small as it was; else read alone."""
    with room() as place:
        mutant = mutated_recipes.mutated(seed, place)
        valid = mutant.valid
        if valid and not mutant.tiny:
            command = ["recipes", *mutant.arguments[:1]]
        else:
            command = ["train", *mutant.arguments, "--run", str(place / "run"), "--device", "cpu"]
        compiles = mutant.recipe is not None and mutant.recipe.runtime.compile is True
        outcome = _asked(seed, command, place, _COMPILED_SECONDS if compiles else HANG_SECONDS)

        def more(outcome: Outcome) -> str | None:
            if not valid and outcome.code == 0:
                return "trained, though it is no recipe"
            return _short(outcome) if outcome.code else None

        return [_judged(mutant.kind, seed, outcome, place, more)]


def _weights(seed: int) -> list[Try]:
    whole = _base.run
    with room() as place:
        if seed % 3 == 2:
            folder = place / "run"
            shutil.copytree(whole, folder)
            (folder / "results.json").unlink()
            files = CheckpointStore(folder / "checkpoints").files()
            files[0].path.unlink()
            path = files[1].path
            kinds = mutated_weights.KINDS
            number = seed if kinds[seed % len(kinds)] not in _OF_MODELS else seed * len(kinds)
            kind = mutated_weights.mutated(number, path, path).partition(":")[0]
            command = arguments(folder, "--resume", settings=("train.checkpoints_kept=3",))
            kind = f"checkpoint, {kind}"
        else:
            path = place / f"w{'.safetensors' if seed % 2 else '.pth'}"
            kind = mutated_weights.mutated(seed, whole / "checkpoints" / "adapted-last.safetensors", path)
            kind = kind.partition(":")[0]
            image = str(_base.place / "photograph.png")
            command = [
                ["predict", str(path), image, "--out", str(place / "out"), "--device", "cpu"],
                ["eval", str(path), "--device", "cpu"],
                arguments(place / "run", "--init", str(path), settings=("train.iterations=1",)),
            ][seed // 3 % 3]
        return [_judged(kind, seed, _asked(seed, command, place), place, _short)]
