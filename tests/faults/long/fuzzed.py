"""One reader under the fuzzer: `python -m faults.long.fuzzed READER SECONDS CORPUS`.

Only modules that are imported while atheris watches guide it: none of them may be imported at the top.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

_MOST_MIB, _MOST_SECONDS = 4096, 60
_GUIDED = ("fastuda", "tomllib", "PIL", "safetensors")


def main() -> None:
    """One reader under the fuzzer; ends the process."""
    reader, seconds, corpus = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    with atheris.instrument_imports(include=list(_GUIDED)):
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

    from fastuda.data.reading.faults import SampleError
    from fastuda.data.reading.images import decode, turn
    from fastuda.data.reading.labels import decode_label

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
    from fastuda.recipe.file import dump_recipe, load_recipe

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

    from fastuda.errors import FastudaError
    from fastuda.model.build import build_network
    from fastuda.model.weights import read_weights
    from fastuda.recipe.file import load_recipe
    from fastuda.runs.checkpoint import save_model

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
        with tempfile.TemporaryDirectory() as folder:
            path = make(seed, Path(folder))
            if path.is_file() and path.stat().st_size <= 1 << 16:
                (corpus / str(seed)).write_bytes(path.read_bytes())


def _short(message: str) -> None:
    if len(message) > 5000:
        raise RuntimeError(f"a message of {len(message)} characters: {message[:500]}")


if __name__ == "__main__":
    main()
