"""The skip list: names of faulty samples that a check leaves in the cache folder, and preparing leaves out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from fastuda.classes import ClassSet
from fastuda.data.checking.report import CheckReport
from fastuda.data.reading.images import pixel_limit
from fastuda.data.reading.samples import Split, data_root
from fastuda.errors import FastudaError
from fastuda.files.disk import make_folder, write_atomic
from fastuda.files.regular_file import read_regular
from fastuda.printable import on_one_line
from fastuda.recipe import Domain

_LIMIT = 1 << 30


def write_skip_list(cache: Path, domain: Domain, report: CheckReport) -> Path:
    """Store the names that `prepare` leaves out, in the cache folder; an earlier list is replaced."""
    path = _skip_path(cache, domain, report.split, report.labelled)
    make_folder(path.parent)
    faults: dict[str, list[dict[str, Any]]] = {name: [] for name in report.skip}
    for problem in report.problems:
        if problem.sample is not None:
            files = problem.files or (problem.file,)
            states = [_file_state(file) for file in files]
            fault = {"kind": problem.kind, "files": files, "states": states, "detail": problem.detail}
            faults[problem.sample].append(fault)
    content = {
        "classes": list(report.pixels),
        "limit": pixel_limit(),
        "root": report.root,
        "layout": report.layout,
        "split": report.split,
        "skip": faults,
    }
    write_atomic(path, json.dumps(content, indent=1).encode())
    return path


def read_skip_list(
    cache: Path, domain: Domain, split: Split, *, labelled: bool, classes: ClassSet | None = None
) -> frozenset[str]:
    """Names to leave out by the last `write_skip_list`; none when the data set was never checked.

    A list holds for the ids it was made with and for labels or none. A sample of which a file has changed since is
    no longer left out, nor one with unknown values when `classes` are others now, nor one that was too large when
    the limit is another.
    """
    path = _skip_path(cache, domain, split, labelled)
    try:
        content = json.loads(read_regular(path, _LIMIT))
        others = set()
        if classes is not None and labelled and content["classes"] != list(classes.names):
            others.add("value")
        if content["limit"] != pixel_limit():
            others.add("too large")
        return frozenset(
            name
            for name, faults in content["skip"].items()
            if all(
                f["kind"] not in others and [_file_state(file) for file in f["files"]] == f["states"] for f in faults
            )
        )
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FastudaError(
            f"{on_one_line(path)}: not a skip list; delete it and run `fastuda data check` again"
        ) from error


def _file_state(file: str) -> list[int]:
    """Bytes and modification time, [0, 0] for a file that cannot be looked at."""
    try:
        status = Path(file).stat()
    except (OSError, ValueError):  # a NUL in the name, in a list that was not written here
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


def _skip_path(cache: Path, domain: Domain, split: Split, labelled: bool) -> Path:
    name = domain.split if split == "train" else domain.val_split
    globs = (domain.images, domain.labels) if split == "train" else (domain.val_images, domain.val_labels)
    ids = sorted((domain.ids or {}).items()) if labelled else None
    key = json.dumps([domain.layout, str(data_root(domain)), split, name, globs, labelled, ids])
    return cache / "skip" / f"2-{domain.layout}-{split}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.json"
