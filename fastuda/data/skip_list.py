"""The skip list: names of faulty samples that a check leaves in the cache folder, and preparing leaves out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from fastuda.data.cache import make_folder, write_atomic
from fastuda.data.layouts import Split, data_root
from fastuda.data.report import CheckReport
from fastuda.errors import FastudaError
from fastuda.recipe import Domain


def write_skip_list(cache: Path, domain: Domain, report: CheckReport) -> Path:
    """Store the names that `prepare` leaves out, in the cache folder; an earlier list is replaced."""
    path = _skip_path(cache, domain, report.split, report.labelled)
    make_folder(path.parent)
    faults: dict[str, list[dict[str, Any]]] = {name: [] for name in report.skip}
    for problem in report.problems:
        if problem.sample is not None:
            fault = {"file": problem.file, "state": _file_state(problem.file), "detail": problem.detail}
            faults[problem.sample].append(fault)
    content = {"root": report.root, "layout": report.layout, "split": report.split, "skip": faults}
    write_atomic(path, json.dumps(content, indent=1).encode())
    return path


def read_skip_list(cache: Path, domain: Domain, split: Split, *, labelled: bool) -> frozenset[str]:
    """Names to leave out by the last `write_skip_list`; none when the data set was never checked.

    A list holds for the ids it was made with and for labels or none; a sample whose faulty file has
    changed since is no longer left out.
    """
    path = _skip_path(cache, domain, split, labelled)
    try:
        skip = json.loads(path.read_text())["skip"]
        return frozenset(
            name for name, faults in skip.items() if all(_file_state(f["file"]) == f["state"] for f in faults)
        )
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FastudaError(f"{path}: not a skip list; delete it and run `fastuda data check` again") from error


def _file_state(file: str) -> list[int]:
    """Bytes and modification time, [0, 0] for a file that cannot be looked at."""
    try:
        status = Path(file).stat()
    except OSError:
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


def _skip_path(cache: Path, domain: Domain, split: Split, labelled: bool) -> Path:
    name = domain.split if split == "train" else domain.val_split
    globs = (domain.images, domain.labels) if split == "train" else (domain.val_images, domain.val_labels)
    ids = sorted((domain.ids or {}).items()) if labelled else None
    key = json.dumps([domain.layout, str(data_root(domain)), split, name, globs, labelled, ids])
    return cache / "skip" / f"{domain.layout}-{split}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.json"
