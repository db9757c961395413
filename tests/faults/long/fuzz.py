"""The three readers of strangers' files under a fuzzer that is guided by coverage (atheris).

`python -m faults.long.fuzz READER SECONDS CORPUS` is one of its processes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from faults.long.commands import room
from faults.long.parts import LANES, Try

READERS = ("images", "recipes", "weights")
_MOST_MIB, _MOST_SECONDS = 4096, 60


def fuzz(minutes: int) -> Iterator[Try]:
    """Each reader for so many minutes; whatever it raises but the one exception for users ends it."""
    with room() as place, ThreadPoolExecutor(LANES) as pool:
        yield from pool.map(lambda reader: _fuzzed(reader, 60 * minutes, place), READERS)


def _fuzzed(reader: str, seconds: int, place: Path) -> Try:
    corpus = place / reader
    corpus.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", __name__, reader, str(seconds), str(corpus)],
        capture_output=True, text=True, errors="backslashreplace", cwd=place,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )  # fmt: skip
    said = done.stdout + done.stderr
    inputs = re.findall(r"number_of_executed_units:\s*(\d+)", said)
    edges = re.findall(r"cov: (\d+)", said)
    numbers = {f"inputs to {reader}": float(inputs[-1])} if inputs else {}
    if edges:
        numbers[f"branches of {reader}"] = float(edges[-1])
    fault = said[-1500:] if done.returncode or not inputs else None
    return Try(f"minutes with {reader}", fault, numbers, seconds // 60)


def main() -> None:
    """One reader under the fuzzer; ends the process."""
    reader, seconds, corpus = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    import atheris

    with atheris.instrument_imports(include=["fastuda", "tomllib", "PIL", "safetensors"]):
        read = {"images": _images, "recipes": _recipes, "weights": _weights}[reader](corpus)
    os.environ["FASTUDA_MAX_PIXELS"] = "1000000"
    options = [
        f"-max_total_time={seconds}", f"-rss_limit_mb={_MOST_MIB}", f"-timeout={_MOST_SECONDS}", "-max_len=65536",
        "-print_final_stats=1", "-verbosity=1",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(corpus)], read)
    atheris.Fuzz()


def _images(corpus: Path) -> Callable[[bytes], None]:
    from faults import images

    from fastuda.data.faults import SampleError
    from fastuda.data.images import decode, turn
    from fastuda.data.labels import decode_label

    _seeds(corpus, lambda seed, folder: images.mutated(seed, folder).path)

    def read(data: bytes) -> None:
        turn(data)
        for attempt in (
            lambda: decode(data, Path("x.png")),
            lambda: decode_label(data, Path("x.png"), "folder"),
            lambda: decode_label(data, Path("x.png"), "synthia"),
        ):
            try:
                attempt()
            except SampleError as error:
                _short(str(error))

    return read


def _recipes(corpus: Path) -> Callable[[bytes], None]:
    from faults import recipes

    from fastuda.errors import UsageError
    from fastuda.recipe_file import dump_recipe, load_recipe

    _seeds(corpus, lambda seed, folder: recipes.mutated(seed, folder).path)
    path = Path(f"/dev/shm/fuzzed-{os.getpid()}.toml")

    def read(data: bytes) -> None:
        path.write_bytes(data)
        try:
            dump_recipe(load_recipe(str(path), []))
        except UsageError as error:
            _short(str(error))

    return read


def _weights(corpus: Path) -> Callable[[bytes], None]:
    import torch
    from faults import weights
    from faults.reading import TINY

    from fastuda.checkpoint import save_model
    from fastuda.errors import FastudaError
    from fastuda.model.build import build_network
    from fastuda.model.weights import read_weights
    from fastuda.recipe_file import load_recipe

    recipe = load_recipe("demo", [*TINY, "model.width=0.03125"])
    torch.manual_seed(1)
    save_model(corpus.parent / "sound.safetensors", build_network(recipe), recipe, {})

    def seed_file(seed: int, folder: Path) -> Path:
        path = folder / "w"
        weights.mutated(seed, corpus.parent / "sound.safetensors", path)
        return path

    _seeds(corpus, seed_file)
    path = Path(f"/dev/shm/fuzzed-{os.getpid()}.pth")

    def read(data: bytes) -> None:
        path.write_bytes(data)
        try:
            read_weights(path)
        except FastudaError as error:
            _short(str(error))

    return read


def _seeds(corpus: Path, make: Callable[[int, Path], Path]) -> None:
    """Files to begin with: a hundred mutations, as far as they are files."""
    for seed in range(100):
        with room() as folder:
            path = make(seed, folder)
            if path.is_file() and path.stat().st_size <= 1 << 16:
                (corpus / str(seed)).write_bytes(path.read_bytes())


def _short(message: str) -> None:
    if len(message) > 5000:
        raise RuntimeError(f"a message of {len(message)} characters: {message[:500]}")


if __name__ == "__main__":
    main()
