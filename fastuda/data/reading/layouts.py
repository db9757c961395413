"""How data sets lie on disk: the image and label files of each layout, paired by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from fastuda.data.reading import globs
from fastuda.data.reading.globs import Found
from fastuda.data.reading.listing import Files, Listing, Sample, gather, is_derived, pair, shown
from fastuda.data.reading.sample_list import chosen_names
from fastuda.errors import FastudaError
from fastuda.files.paths import entries, is_folder, user_path
from fastuda.printable import on_one_line
from fastuda.recipe import Domain

Split = Literal["train", "val"]
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
TRAIN_IDS_SUFFIX = "_gtFine_labelTrainIds.png"
_LABEL_IDS_SUFFIX = "_gtFine_labelIds.png"
_CITYSCAPES_IMAGES = tuple(f"_leftImg8bit{suffix}" for suffix in IMAGE_SUFFIXES)


def find_samples(domain: Domain, split: Split, *, labelled: bool) -> Listing:
    """List a data set as `data/README.md` has it on disk. Nothing is opened; `check` and `prepare` do that.

    `split` picks `domain.split` or `domain.val_split` (Cityscapes) or the `val_` globs (folder); GTA5
    and SYNTHIA are one whole. With `labelled`, only complete pairs become samples; without, labels
    are not looked for. What is no sample stands in the listing too. FastudaError names the folder and what was
    expected in it.
    """
    root = data_root(domain)
    other_suffix: list[Path] = []
    match domain.layout:
        case "gta5":
            images = _in_folder(root / "images", IMAGE_SUFFIXES, "gta5")
            other_suffix = _other_pictures(root / "images", images)
            labels = _in_folder(root / "labels", (".png",), "gta5") if labelled else []
        case "synthia":
            root = root / "RAND_CITYSCAPES" if is_folder(root / "RAND_CITYSCAPES") else root
            images = _in_folder(root / "RGB", IMAGE_SUFFIXES, "synthia")
            other_suffix = _other_pictures(root / "RGB", images)
            labels = _in_folder(root / "GT" / "LABELS", (".png",), "synthia") if labelled else []
        case "cityscapes":
            name = domain.split if split == "train" else domain.val_split
            images = _cityscapes(root, "leftImg8bit", name, _CITYSCAPES_IMAGES)
            labels = _cityscapes_labels(root, name) if labelled else []
        case "folder":
            images, labels, other_suffix = _globbed(domain, split, root, labelled)
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
        raise FastudaError(f"{on_one_line(root)}: no such folder; expected there: {_EXPECTED[domain.layout]}")
    return root


_EXPECTED = {
    "gta5": "images/00001.png … and labels/00001.png …",
    "synthia": "RGB/0000000.png … and GT/LABELS/0000000.png …, or RAND_CITYSCAPES/ with both",
    "cityscapes": "leftImg8bit/SPLIT/CITY/*_leftImg8bit.png and gtFine/SPLIT/CITY/*_gtFine_labelIds.png, "
    "or leftImg8bit_trainvaltest/ and gtFine_trainvaltest/ with these",
    "folder": "the files of the recipe's globs",
}


def _in_folder(folder: Path, suffixes: tuple[str, ...], layout: str) -> list[Found]:
    if not is_folder(folder):
        around = entries(folder.parent) if is_folder(folder.parent) else []
        near = [path.name for path in around if path.name.lower() == folder.name.lower()]
        hint = f" ({near[0]} is there: write it as {folder.name})" if near else ""
        raise FastudaError(f"{on_one_line(folder)}: no such folder{hint}; layout {layout} expects {_EXPECTED[layout]}")
    found = [
        Found(path.stem, path)
        for path in entries(folder)
        if path.suffix.lower() in suffixes and not path.name.startswith(".")
    ]
    if not found:
        raise FastudaError(
            f"{on_one_line(folder)}: holds no {' or '.join(suffixes)} file; layout {layout} expects {_EXPECTED[layout]}"
        )
    return found


def _other_pictures(folder: Path, images: list[Found]) -> list[Path]:
    """Pictures of other kinds in a folder of images, whose names no image bears."""
    names = {one.name for one in images}
    return [one.path for one in globs.find(folder, globs.parse("*")) if one.name not in names]


def _cityscapes(root: Path, kind: str, split: str, endings: tuple[str, ...]) -> list[Found]:
    """Files of one split as `city/city_000000_000019`, by the ending that each has."""
    bases = [root / kind, root / f"{kind}_trainvaltest" / kind]
    folder = next((base / split for base in bases if is_folder(base / split)), None)
    if folder is None:
        splits = sorted({path.name for base in bases if is_folder(base) for path in entries(base) if is_folder(path)})
        found = f"{kind} has only {on_one_line(', '.join(splits), 200)}" if splits else f"there is no {kind}"
        raise FastudaError(
            f"{on_one_line(bases[0] / split)}: no such folder ({found}); layout cityscapes expects "
            f"{_EXPECTED['cityscapes']}"
        )
    files = [
        Found(f"{city.name}/{path.name[: -len(ending)]}", path)
        for city in entries(folder)
        if is_folder(city)
        for path in entries(city)
        for ending in endings
        if path.name.lower().endswith(ending.lower()) and not path.name.startswith(".")
    ]
    if not files:
        raise FastudaError(
            f"{on_one_line(folder)}: holds no CITY/*{endings[0]}; layout cityscapes expects {_EXPECTED['cityscapes']}"
        )
    return files


def _cityscapes_labels(root: Path, split: str) -> list[Found]:
    """labelIds, and train ids only where there are none: the official tools write those beside them."""
    found = _cityscapes(root, "gtFine", split, (_LABEL_IDS_SUFFIX, TRAIN_IDS_SUFFIX))
    own = {one.name for one in found if one.path.name.endswith(_LABEL_IDS_SUFFIX)}
    return [one for one in found if one.name not in own or one.path.name.endswith(_LABEL_IDS_SUFFIX)]


def _globbed(domain: Domain, split: Split, root: Path, labelled: bool) -> tuple[list[Found], list[Found], list[Path]]:
    """Images, labels, and images that lie there under a suffix that the glob leaves out."""
    where = ("images", "labels") if split == "train" else ("val_images", "val_labels")
    patterns = [getattr(domain, key) for key in where]
    for key, pattern in zip(where, patterns, strict=True):
        if not pattern and (labelled or key == where[0]):
            raise FastudaError(
                f'{on_one_line(root)}: the recipe has no `{key}` for this folder; give a glob such as "{key}/*.png"'
            )
    image_globs = globs.parse(patterns[0])
    images = _matching(root, where[0], patterns[0])
    # A mask may lie beside its image, under a glob that finds both; the narrower glob says what a file is.
    masks = _label_files(domain, root)
    narrowness = min(glob.literals for glob in image_globs)
    images = [one for one in images if masks.get(one.path, -1) <= narrowness]
    labels: list[Found] = []
    if labelled:
        counts = [{glob.num_wildcards for glob in globs.parse(pattern)} for pattern in patterns]
        if counts[0] != counts[1] or len(counts[0]) > 1:
            said = [" or ".join(map(str, sorted(count))) for count in counts]
            raise FastudaError(
                f"{on_one_line(root)}: `{where[0]}` has {said[0]} wildcards and `{where[1]}` {said[1]}; "
                "what each stands for must agree, so give both as many"
            )
        labels = _matching(root, where[1], patterns[1])
        taken = {one.path for one in images}
        if both := [one.path for one in labels if one.path in taken and masks[one.path] == narrowness]:
            raise FastudaError(
                f"{on_one_line(root)}: `{where[0]}` and `{where[1]}` find the same files, "
                f"such as {on_one_line(both[0])}; give the labels a glob "
                'of their own, such as "*_mask.png"'
            )
        labels = [one for one in labels if one.path not in taken]
    return images, labels, _other_suffixes(root, patterns[0], images, masks)


def _matching(root: Path, key: str, patterns: str | Sequence[str]) -> list[Found]:
    found = globs.find(root, globs.parse(patterns))
    if found:
        return found
    said = on_one_line(repr(patterns) if isinstance(patterns, str) else ", ".join(map(repr, patterns)), 200)
    near: list[tuple[str, Callable[[], list[Found]]]] = [
        ("when case does not matter", lambda: globs.find(root, globs.parse(patterns), blind=True)),
        ("under another suffix", lambda: globs.find(root, globs.parse(patterns, any_suffix=True))),
    ]
    for how, look in near:
        if others := look():
            raise FastudaError(
                f"{on_one_line(root)}: no file matches `{key}` = {said}, but {len(others)} do {how}, "
                f"such as {on_one_line(others[0].path)}; "
                f"write `{key}` as the files are named"
            )
    raise FastudaError(f"{on_one_line(root)}: no file matches `{key}` = {said}")


def _label_files(domain: Domain, root: Path) -> dict[Path, int]:
    """Every file that a label glob of the domain finds, and how narrow that glob is."""
    masks: dict[Path, int] = {}
    for pattern in (domain.labels, domain.val_labels):
        for glob in globs.parse(pattern) if pattern else ():
            for one in glob.find(root):
                masks[one.path] = max(glob.literals, masks.get(one.path, -1))
    return masks


def _other_suffixes(
    root: Path, patterns: str | Sequence[str], images: list[Found], masks: dict[Path, int]
) -> list[Path]:
    names, known = {one.name for one in images}, {one.path for one in images} | masks.keys()
    others = globs.find(root, globs.parse(patterns, any_suffix=True))
    return [one.path for one in others if one.path not in known and one.name not in names]


def _only(files: Files, names: set[str]) -> Files:
    return {name: path for name, path in files.items() if name in names}


def _unpaired(root: Path, images: Files, labels: Files) -> FastudaError:
    return FastudaError(
        f"{on_one_line(root)}: {len(images)} images, but none has a label of its own name "
        f"(images such as {shown([*images.values()][:1])}, labels such as {shown([*labels.values()][:1]) or 'none'}; "
        "they must agree in name)"
    )
