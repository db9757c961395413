"""How fast is `prepare`, and how much memory does it take? GTA5-sized pairs, everything included."""

from __future__ import annotations

import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import cast, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from fastuda.classes import CITYSCAPES_19, ClassSet
from fastuda.data.packing.pack import PackFormat
from fastuda.data.packing.prepare import prepare
from fastuda.data.parallel import run_parallel
from fastuda.layouts import GTA5
from fastuda.recipe import Data, Domain
from fastuda_bench.results import Row, stamp, summary

GTA5_SIZE = (1914, 1052)
PACKED_SIZE = (1280, 720)
_IDS = np.array([4, 7, 7, 8, 11, 11, 17, 20, 21, 21, 23, 24, 26, 34], np.uint8)


def made_pair(seed: int, size: tuple[int, int] = GTA5_SIZE) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An image [H, W, 3] and its label ids [H, W], both uint8, with about the detail of a rendered street.

    Regions with sharp edges, texture in five octaves and a little sensor noise; as PNGs they take
    1.7 MB and 75 kB at the default size.
    """
    rng = np.random.default_rng(seed)
    height, width = size[1], size[0]

    def smooth(cells: int, channels: int) -> NDArray[np.float32]:
        shape = (max(cells * height // width, 2), cells)
        planes = [
            np.asarray(Image.fromarray(rng.standard_normal(shape, np.float32)).resize(size, Image.Resampling.BICUBIC))
            for _ in range(channels)
        ]
        return np.stack(planes, -1)

    field = smooth(9, 1)[..., 0] + 0.35 * smooth(40, 1)[..., 0] + 0.03 * smooth(200, 1)[..., 0]
    field += np.linspace(-1.5, 1.5, height, dtype=np.float32)[:, None]
    region = np.digitize(field, np.quantile(field, np.linspace(0, 1, len(_IDS) + 1)[1:-1]))
    colours = rng.integers(40, 216, (len(_IDS), 3)).astype(np.float32)
    image = colours[region]
    for cells, strength in ((12, 20.0), (48, 8.0), (160, 5.0), (480, 3.0), (960, 2.0)):
        image += strength * smooth(cells, 1)
    image += rng.normal(0, 1.6, (height, width, 1)).astype(np.float32)
    return image.clip(0, 255).astype(np.uint8), _IDS[region]


def write_pairs(root: Path, num_pairs: int, num_different: int = 12, size: tuple[int, int] = GTA5_SIZE) -> None:
    """A GTA5 folder of `num_pairs` made pairs, the first `num_different` of which differ; labels in palette PNGs."""
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)

    def paths(i: int) -> list[Path]:
        return [root / kind / f"{i + 1:05d}.png" for kind in ("images", "labels")]

    def write(i: int) -> None:
        image, label_path = paths(i)
        pixels, ids = made_pair(i, size)
        Image.fromarray(pixels).save(image)
        label = Image.fromarray(ids).convert("P")
        label.putpalette([(i * 89) % 256 for i in range(768)])
        label.save(label_path)

    for _ in run_parallel(write, range(min(num_different, num_pairs))):
        pass
    for i in range(num_different, num_pairs):
        for path, first in zip(paths(i), paths(i % num_different), strict=True):
            shutil.copy(first, path)


def prepare_rows(
    num_pairs: int = 60, repeats: int = 3, workers: int | None = None, formats: tuple[PackFormat, ...] = ("png",)
) -> list[Row]:
    """Pairs a second, peak memory and bytes of packing GTA5-sized pairs with labels; files in page cache.

    Each repeat packs into a fresh folder in a fresh process, and is timed from the call to its return.
    The CPU time tells the cost even where other work shares the cores.
    """
    rows = []
    with tempfile.TemporaryDirectory(prefix="fastuda-bench-") as folder:
        root = Path(folder) / GTA5.name
        write_pairs(root, num_pairs)
        source_bytes = _bytes_below(root)
        for format in formats:
            rates, costs, peaks, packed_bytes = [], [], [], 0
            for repeat in range(repeats):
                cache = Path(folder) / f"{format}-{repeat}"
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    seconds, cpu_seconds, peak = pool.submit(_timed, root, cache, format, workers).result()
                rates.append(num_pairs / seconds)
                costs.append(1000 * cpu_seconds / num_pairs)
                peaks.append(peak / 2**20)
                packed_bytes = _bytes_below(cache)
                shutil.rmtree(cache)
            rows.append(
                {
                    "question": "prepare",
                    "format": format,
                    "source_size": GTA5_SIZE,
                    "packed_size": PACKED_SIZE,
                    "num_pairs": num_pairs,
                    "source_bytes_a_pair": source_bytes // num_pairs,
                    "packed_bytes_a_pair": packed_bytes // num_pairs,
                    "pairs_per_second": summary(rates),
                    "cpu_ms_a_pair": summary(costs),
                    "peak_rss_mib": summary(peaks),
                    **stamp(["pillow", "numpy"]),
                }
            )
    return rows


def main(num_pairs: int = 60, repeats: int = 3, workers: int | None = None) -> list[Row]:
    """Measure every format, print a table, and return the rows."""
    rows = prepare_rows(num_pairs, repeats, workers, cast(tuple[PackFormat, ...], get_args(PackFormat)))
    table = Table(title=f"prepare: {num_pairs} pairs 1914x1052 to 1280x720 on {rows[0]['cores']} cores")
    for column in (
        "format",
        "pairs/s",
        "spread",
        "CPU ms a pair",
        "peak RSS MiB",
        "kB a pair, source",
        "kB a pair, packed",
    ):
        table.add_column(column, justify="left" if column == "format" else "right")
    for row in rows:
        rate, peak = row["pairs_per_second"], row["peak_rss_mib"]
        table.add_row(
            row["format"],
            f"{rate['median']:.1f}",
            f"{rate['spread']:.1f}",
            f"{row['cpu_ms_a_pair']['median']:.0f}",
            f"{peak['median']:.0f}",
            f"{row['source_bytes_a_pair'] / 1000:.0f}",
            f"{row['packed_bytes_a_pair'] / 1000:.0f}",
        )
    Console().print(table)
    return rows


def _timed(root: Path, cache: Path, format: PackFormat, workers: int | None) -> tuple[float, float, int]:
    """Seconds and CPU seconds of one `prepare` call, and the process's peak resident bytes."""
    start, cpu_start = time.perf_counter(), time.process_time()
    prepare(
        Domain(layout=GTA5.name, root=root),
        "train",
        size=PACKED_SIZE,
        labels="resized",
        classes=ClassSet.of(CITYSCAPES_19),
        data=Data(cache=cache, pack=format),
        workers=workers,
    )
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    status = Path("/proc/self/status").read_text()
    kibibytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return seconds, cpu_seconds, int(kibibytes) * 1024


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
