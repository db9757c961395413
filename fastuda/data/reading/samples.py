"""The samples of a data set: its images and labels, paired by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from fastuda.data.reading.listing import FilesByName, Listing, Sample, gather, is_derived, pair, shown
from fastuda.data.reading.own_globs import globbed
from fastuda.data.reading.places import placed_images, placed_labels
from fastuda.data.reading.sample_list import chosen_names
from fastuda.errors import FastudaError
from fastuda.files.paths import is_folder, user_path
from fastuda.layouts import LAYOUTS
from fastuda.printable import on_one_line
from fastuda.recipe import Domain

Split = Literal["train", "val"]


def find_samples(domain: Domain, split: Split, *, labelled: bool) -> Listing:
    """List a data set as its layout says. Nothing is opened; `check` and `prepare` do that.

    `split` picks `domain.split` or `domain.val_split`, or the `val_` globs (folder); a data set without splits is one
    whole. With `labelled`, only complete pairs become samples; without, labels are not looked for. What is no sample
    stands in the listing too. FastudaError names the folder and what was expected in it.
    """
    root = data_root(domain)
    layout = LAYOUTS[domain.layout]
    if layout.by_globs:
        images, labels, other_suffix = globbed(domain, root, validation=split == "val", labelled=labelled)
    else:
        if layout.wrapped_in is not None and is_folder(root / layout.wrapped_in):
            root = root / layout.wrapped_in
        name = domain.split if split == "train" else domain.val_split
        images, other_suffix = placed_images(root, layout, name)
        labels = placed_labels(root, layout, name) if labelled else []
    files, twice = gather(images)
    label_files, labels_twice = gather(labels)
    twice |= labels_twice
    unlisted: list[Path] = []
    if domain.listing is not None and split == "train":
        chosen = chosen_names(user_path(domain.listing), files, twice)
        unlisted = [files[name] for name in sorted(files.keys() - chosen)]
        files, label_files = _only(files, chosen), _only(label_files, chosen)
        twice = {name: paths for name, paths in twice.items() if name in chosen}
    if labelled:
        found = pair(files, label_files, twice)
        if not found.samples and not twice:
            raise _unpaired(root, files, label_files)
    else:
        beside = {name for name in files if is_derived(name, files)}
        alone = [Sample(name, files[name], None) for name in sorted(files) if name not in beside]
        found = Listing(alone, twice=twice, beside=[files[name] for name in sorted(beside)])
    found.unlisted.extend(unlisted)
    found.other_suffix.extend(other_suffix)
    return found


def data_root(domain: Domain) -> Path:
    """The data set's folder, absolute; FastudaError when it is not given or not there."""
    if domain.root is None:
        raise FastudaError(
            f"no folder is given for the {domain.layout} data: pass --source DIR or --target DIR, or set `root`"
        )
    root = Path(os.path.realpath(user_path(domain.root)))  # which takes a link that leads to itself as it is
    if not is_folder(root):
        raise FastudaError(f"{on_one_line(root)}: no such folder; expected there: {LAYOUTS[domain.layout].expected}")
    return root


def _only(files: FilesByName, names: set[str]) -> FilesByName:
    return {name: path for name, path in files.items() if name in names}


def _unpaired(root: Path, images: FilesByName, labels: FilesByName) -> FastudaError:
    return FastudaError(
        f"{on_one_line(root)}: {len(images)} images, but none has a label of its own name "
        f"(images such as {shown([*images.values()][:1])}, labels such as {shown([*labels.values()][:1]) or 'none'}; "
        "they must agree in name)"
    )
