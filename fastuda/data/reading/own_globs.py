"""Files that a recipe's own globs find: the layout `folder`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from fastuda.data.reading import globs
from fastuda.data.reading.globs import Found
from fastuda.errors import FastudaError
from fastuda.printable import on_one_line
from fastuda.recipe import Domain


def globbed(
    domain: Domain, root: Path, *, validation: bool, labelled: bool
) -> tuple[list[Found], list[Found], list[Path]]:
    """Images, labels, and images that lie there under a suffix that the glob leaves out.

    With `validation` by the globs `val_images` and `val_labels`, else by `images` and `labels`; without `labelled` no
    label is looked for. FastudaError names the glob that is missing, finds nothing or does not go with the other.
    """
    where = ("val_images", "val_labels") if validation else ("images", "labels")
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
