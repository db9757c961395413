"""Writes the two drawn domains to disk in the GTA5 and Cityscapes layouts, all or nothing."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastuda.classes import CITYSCAPES_19, CITYSCAPES_IDS, ClassSet
from fastuda.demo import crew
from fastuda.demo.domains import SOURCE, TARGET, Domain
from fastuda.demo.scene import draw_scene
from fastuda.errors import FastudaError

MARKER = "demo.json"
"""Written last; a folder without it is no finished demo."""
DRAWING = 2
"""Raised whenever the same seed draws other pictures than before."""
_CHUNK = 4
_COMPRESS_LEVEL = 2


@dataclass(frozen=True)
class _Split:
    domain: Domain
    image: str
    label: str
    palette: bool
    first: int


# A split's position is part of the seed of its scenes, so splits may be added only at the end.
_SPLITS = {
    "num_source": _Split(SOURCE, "source/images/{:05d}.png", "source/labels/{:05d}.png", True, 1),
    "num_source_val": _Split(SOURCE, "source_val/images/{:05d}.png", "source_val/labels/{:05d}.png", True, 1),
    "num_target": _Split(
        TARGET,
        "target/leftImg8bit/train/demo/demo_{:06d}_leftImg8bit.png",
        "target/gtFine/train/demo/demo_{:06d}_gtFine_labelIds.png",
        False,
        0,
    ),
    "num_val": _Split(
        TARGET,
        "target/leftImg8bit/val/demo/demo_{:06d}_leftImg8bit.png",
        "target/gtFine/val/demo/demo_{:06d}_gtFine_labelIds.png",
        False,
        0,
    ),
}


@dataclass(frozen=True)
class _Job:
    root: Path
    split: str
    index: int
    size: tuple[int, int]
    seed: int


def draw_demo(
    root: Path,
    *,
    num_source: int = 300,
    num_source_val: int = 40,
    num_target: int = 300,
    num_val: int = 50,
    size: tuple[int, int] = (512, 256),
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Draw both domains under `root`; a finished demo with the same settings is left as it is.

    Writes `source` and `source_val` (GTA5 layout: RGB images, palette PNGs of labelIds) and `target`
    (Cityscapes layout: `leftImg8bit/{train,val}`, `gtFine/{train,val}` with labelIds); void is 0. The labels of the
    target's training images are there to measure what they would have been worth, and adaptation never reads them.
    The files are a function of `seed`, `size` (width, height in pixels) and their own number, whatever
    the number of `workers` (processes, which never run the caller's script; every core by default).
    `progress(done, total)` counts images, and is called while nothing new is done too: what it raises
    ends the call at once.
    Everything is drawn in a hidden folder beside `root` and renamed at the end, so an interrupted call
    leaves no `root`. Raises FastudaError for settings out of range, a `root` that holds anything else
    or an incomplete demo, and files that cannot be written.
    """
    counts = {
        "num_source": num_source,
        "num_source_val": num_source_val,
        "num_target": num_target,
        "num_val": num_val,
    }
    if min(counts.values()) < 0 or seed < 0 or min(size) < 32 or (workers is not None and workers < 1):
        raise FastudaError("the demo needs counts and a seed of at least 0, 32×32 pixels and one worker")
    record = {"generator": DRAWING, "seed": seed, "size": list(size), **counts}
    jobs = [_Job(root, name, i, size, seed) for name, count in counts.items() for i in range(count)]
    if _is_drawn(root, record, jobs):
        return
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
    except OSError as error:
        raise FastudaError(f"{root.parent}: the demo cannot be written here ({error})") from error
    try:
        # mkdtemp's own folder is private to the user; the one inside it is not, and becomes `root`.
        inner = scratch / "demo"
        inner.mkdir()
        _draw_all([_Job(inner, job.split, job.index, size, seed) for job in jobs], workers, progress)
        (inner / MARKER).write_text(json.dumps(record, indent=2) + "\n")
        inner.rename(root)
    except OSError as error:
        raise FastudaError(f"{root}: the demo could not be written ({error})") from error
    except crew.CrewError as error:
        raise FastudaError(f"{root}: a process that drew the demo {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _is_drawn(root: Path, record: dict[str, object], jobs: list[_Job]) -> bool:
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    marker = root / MARKER
    try:
        found = json.loads(marker.read_text())
    except (OSError, ValueError):
        raise FastudaError(
            f"{root} holds something that is not a drawn demo (no readable {MARKER}); choose another folder"
        ) from None
    if found != record:
        raise FastudaError(f"{root} holds a demo drawn with {found}, not {record}; choose another folder or delete it")
    missing = [path for job in jobs for path in _paths(job) if not path.is_file()]
    if missing:
        raise FastudaError(f"{root} lacks {len(missing)} of its files, first {missing[0]}; delete it and draw again")
    return True


def _draw_all(jobs: list[_Job], workers: int | None, progress: Callable[[int, int], None] | None) -> None:
    for folder in {path.parent for job in jobs for path in _paths(job)}:
        folder.mkdir(parents=True, exist_ok=True)
    workers = min(workers or len(os.sched_getaffinity(0)), len(jobs))
    # Closed before the caller removes its folder, so that no worker is still writing into it.
    with closing(_counts(jobs, workers)) as counts:
        for done in counts:
            if progress is not None:
                progress(done, len(jobs))


def _counts(jobs: list[_Job], workers: int) -> Generator[int, None, None]:
    """How many are drawn, again and again, a few times a second, so that a caller can leave; close it to do so."""
    if workers <= 1:
        for done, job in enumerate(jobs, 1):
            _draw_one(job)
            yield done
        return
    yield from crew.counts(_draw, [jobs[i : i + _CHUNK] for i in range(0, len(jobs), _CHUNK)], workers)


def _draw(jobs: list[_Job]) -> int:
    for job in jobs:
        _draw_one(job)
    return len(jobs)


def _draw_one(job: _Job) -> None:
    split = _SPLITS[job.split]
    key = (job.seed, list(_SPLITS).index(job.split), job.index)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))
    image, label = draw_scene(rng, split.domain, job.size)
    image_path, label_path = _paths(job)
    Image.fromarray(image).save(image_path, compress_level=_COMPRESS_LEVEL)
    _label_image(label, palette=split.palette).save(label_path, compress_level=_COMPRESS_LEVEL)


def _paths(job: _Job) -> tuple[Path, Path]:
    split = _SPLITS[job.split]
    number = split.first + job.index
    return job.root / split.image.format(number), job.root / split.label.format(number)


def _label_image(label: NDArray[np.uint8], *, palette: bool) -> Image.Image:
    image = Image.fromarray(label)
    if palette:
        classes = ClassSet.of(CITYSCAPES_19)
        colours = classes.colour_table()[classes.train_id_table(CITYSCAPES_IDS)]
        image.putpalette(colours.ravel().tolist())
    return image
