"""How data sets lie on disk: the image and label files of each layout, paired by name."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fastuda.errors import FastudaError
from fastuda.recipe import Domain

Split = Literal["train", "val"]
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
TRAIN_IDS_SUFFIX = "_gtFine_labelTrainIds.png"
_LABEL_IDS_SUFFIX = "_gtFine_labelIds.png"


@dataclass(frozen=True)
class Sample:
    """One image and, where asked for, its label; `name` is unique within the listing."""

    name: str
    image: Path
    label: Path | None


@dataclass(frozen=True)
class Listing:
    """A data set's samples, sorted by name, and the files left over because their partner is missing."""

    samples: list[Sample]
    without_label: list[Path] = field(default_factory=list)
    without_image: list[Path] = field(default_factory=list)

    @property
    def unpaired(self) -> list[str]:
        """One line for each file whose partner is missing."""
        return [f"{path}: no label" for path in self.without_label] + [
            f"{path}: no image" for path in self.without_image
        ]


Files = dict[str, Path]


def find_samples(domain: Domain, split: Split, *, labelled: bool) -> Listing:
    """List a data set (protocol: On-disk layouts). Nothing is opened; `check` and `prepare` do that.

    `split` picks `domain.split` or `domain.val_split` (Cityscapes) or the `val_` globs (folder); GTA5
    and SYNTHIA are one whole. With `labelled`, only complete pairs become samples; without, labels
    are not looked for. FastudaError names the folder and what was expected in it.
    """
    root = data_root(domain)
    match domain.layout:
        case "gta5":
            images = _stems(root / "images", IMAGE_SUFFIXES, "gta5")
            labels = _stems(root / "labels", (".png",), "gta5") if labelled else {}
        case "synthia":
            root = root / "RAND_CITYSCAPES" if (root / "RAND_CITYSCAPES").is_dir() else root
            images = _stems(root / "RGB", IMAGE_SUFFIXES, "synthia")
            labels = _stems(root / "GT" / "LABELS", (".png",), "synthia") if labelled else {}
        case "cityscapes":
            name = domain.split if split == "train" else domain.val_split
            images = _cityscapes(root, "leftImg8bit", name, ("_leftImg8bit.png", "_leftImg8bit.jpg"))
            labels = _cityscapes(root, "gtFine", name, (_LABEL_IDS_SUFFIX, TRAIN_IDS_SUFFIX)) if labelled else {}
        case "folder":
            images, labels = _globbed(domain, split, root, labelled)
    if domain.listing is not None and split == "train":
        images, labels = _narrowed(domain.listing, images, labels)
    if not labelled:
        return Listing([Sample(name, images[name], None) for name in sorted(images)])
    paired = sorted(images.keys() & labels.keys())
    if not paired:
        image, label = next(iter(images.values())), next(iter(labels.values()), None)
        raise FastudaError(
            f"{root}: {len(images)} images, but none has a label of its own name "
            f"(images such as {image}, labels such as {label}; they must agree in name)"
        )
    return Listing(
        [Sample(name, images[name], labels[name]) for name in paired],
        [images[name] for name in sorted(images.keys() - labels.keys())],
        [labels[name] for name in sorted(labels.keys() - images.keys())],
    )


def data_root(domain: Domain) -> Path:
    """The data set's folder, absolute; FastudaError when it is not given or not there."""
    if domain.root is None:
        raise FastudaError(
            f"no folder is given for the {domain.layout} data: pass --source DIR or --target DIR, or set `root`"
        )
    root = domain.root.expanduser().resolve()
    if not root.is_dir():
        raise FastudaError(f"{root}: no such folder; expected there: {_EXPECTED[domain.layout]}")
    return root


_EXPECTED = {
    "gta5": "images/00001.png … and labels/00001.png …",
    "synthia": "RGB/0000000.png … and GT/LABELS/0000000.png …, or RAND_CITYSCAPES/ with both",
    "cityscapes": "leftImg8bit/SPLIT/CITY/*_leftImg8bit.png and gtFine/SPLIT/CITY/*_gtFine_labelIds.png, "
    "or leftImg8bit_trainvaltest/ and gtFine_trainvaltest/ with these",
    "folder": "the files of the recipe's globs",
}


def _stems(folder: Path, suffixes: tuple[str, ...], layout: str) -> Files:
    if not folder.is_dir():
        raise FastudaError(f"{folder}: no such folder; layout {layout} expects {_EXPECTED[layout]}")
    files = {
        path.stem: path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in suffixes and not path.name.startswith(".")
    }
    if not files:
        raise FastudaError(
            f"{folder}: holds no {' or '.join(suffixes)} file; layout {layout} expects {_EXPECTED[layout]}"
        )
    return files


def _cityscapes(root: Path, kind: str, split: str, endings: tuple[str, ...]) -> Files:
    """Files of one split as `city/city_000000_000019`; where several endings exist, the first is taken."""
    bases = [root / kind, root / f"{kind}_trainvaltest" / kind]
    folder = next((base / split for base in bases if (base / split).is_dir()), None)
    if folder is None:
        splits = sorted({path.name for base in bases if base.is_dir() for path in base.iterdir() if path.is_dir()})
        found = f"{kind} has only {', '.join(splits)}" if splits else f"there is no {kind}"
        raise FastudaError(
            f"{bases[0] / split}: no such folder ({found}); layout cityscapes expects {_EXPECTED['cityscapes']}"
        )
    files: Files = {}
    for ending in reversed(endings):
        for path in folder.glob(f"*/*{ending}"):
            if not path.name.startswith("."):
                files[f"{path.parent.name}/{path.name.removesuffix(ending)}"] = path
    if not files:
        raise FastudaError(
            f"{folder}: holds no CITY/*{endings[0]}; layout cityscapes expects {_EXPECTED['cityscapes']}"
        )
    return files


def _globbed(domain: Domain, split: Split, root: Path, labelled: bool) -> tuple[Files, Files]:
    where = ("images", "labels") if split == "train" else ("val_images", "val_labels")
    patterns = {key: getattr(domain, key) for key in where}
    for key in where if labelled else where[:1]:
        if not patterns[key]:
            raise FastudaError(f'{root}: the recipe has no `{key}` for this folder; give a glob such as "{key}/*.png"')
    images = _glob(root, patterns[where[0]], where[0])
    if not labelled:
        return images, {}
    counts = [len(_WILDCARD.findall(patterns[key])) for key in where]
    if counts[0] != counts[1]:
        raise FastudaError(
            f"{root}: `{where[0]}` has {counts[0]} wildcards and `{where[1]}` {counts[1]}; "
            "what each stands for must agree, so give both as many"
        )
    return images, _glob(root, patterns[where[1]], where[1])


_WILDCARD = re.compile(r"\*\*/?|\*|\?|\[!?\]?[^]]*\]")


def _glob(root: Path, pattern: str, key: str) -> Files:
    """Files that match `pattern`, named by what its wildcards stand for."""
    shape = re.compile(_as_regex(pattern))
    files: Files = {}
    for found in sorted(glob.glob(pattern, root_dir=root, recursive=True)):
        path = root / found
        match = shape.fullmatch(found)
        if match is None or not path.is_file():
            continue
        name = "/".join(part for part in match.groups() if part) or path.stem
        if name in files:
            raise FastudaError(f"{path}: has the same name ({name}) as {files[name]}; narrow the glob `{key}`")
        files[name] = path
    if not files:
        raise FastudaError(f"{root}: no file matches `{key}` = {pattern!r}")
    return files


def _as_regex(pattern: str) -> str:
    parts, end = [], 0
    for wildcard in _WILDCARD.finditer(pattern):
        parts.append(re.escape(pattern[end : wildcard.start()]))
        text, end = wildcard.group(), wildcard.end()
        if text == "**/":
            parts.append("(?:(.+)/)?")
        elif text == "**":
            parts.append("(.*)")
        elif text in "*?":
            parts.append("([^/]*)" if text == "*" else "([^/])")
        else:
            parts.append("(" + text.replace("[!", "[^", 1) + ")")
    return "".join(parts) + re.escape(pattern[end:])


def _narrowed(listing: Path, images: Files, labels: Files) -> tuple[Files, Files]:
    try:
        lines = [line.strip() for line in listing.expanduser().read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise FastudaError(f"{listing}: cannot read this list of names ({error})") from error
    known = _aliases(images)
    chosen: set[str] = set()
    for line in filter(None, lines):
        name = known.get(line)
        if name is None:
            raise FastudaError(
                f"{listing}: lists {line!r}, and no image has this name (names look like {next(iter(images))!r})"
            )
        chosen.add(name)
    if not chosen:
        raise FastudaError(f"{listing}: lists no name; write one a line, or drop `listing`")
    return _only(images, chosen), _only(labels, chosen)


def _aliases(images: Files) -> dict[str, str]:
    """Every way to write a sample's name in a list: as it is, or its file's name, with or without folder."""
    aliases: dict[str, str] = {}
    shared: set[str] = set()
    for name, path in images.items():
        folder = path.parent.name
        written = {path.stem, path.name, f"{folder}/{path.stem}", f"{folder}/{path.name}", name + path.suffix}
        for alias in written | {name.rpartition("/")[2]}:
            if aliases.setdefault(alias, name) != name:
                shared.add(alias)
    for alias in shared:
        del aliases[alias]
    return aliases | {name: name for name in images}


def _only(files: Files, names: Iterable[str]) -> Files:
    return {name: files[name] for name in names if name in files}
