"""Checks as a user asks for them: by layout and folder, with the skip list kept up to date."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from fastuda.data.cache import cache_folder
from fastuda.data.checking.check import check
from fastuda.data.checking.report import CheckReport, Comparison
from fastuda.data.checking.skip_list import write_skip_list
from fastuda.data.reading.listing import counted
from fastuda.data.reading.samples import Split
from fastuda.errors import UsageError, nearest
from fastuda.files.disk import write_json
from fastuda.files.paths import user_path
from fastuda.layouts import LAYOUTS, one_of
from fastuda.printable import on_one_line
from fastuda.recipe import Domain, Recipe

Progress = Callable[[int, int], None]


def domain_of(recipe: Recipe, layout: str, root: Path, side: str | None = None) -> Domain:
    """The recipe's domain of that layout, at `root`; a known layout that the recipe lacks has no settings to lack.

    `side` ("source", "target") says which is meant where both could be. Raises UsageError for an unknown layout, or
    `folder` where the recipe has none or two of them.
    """
    if side not in (None, "source", "target"):
        raise UsageError(f"--domain {side}: source or target")
    if layout not in LAYOUTS:
        raise UsageError(f"layout {on_one_line(layout, 80)}: {one_of([*LAYOUTS])}{nearest(layout, [*LAYOUTS])}")
    domains = {"source": recipe.source, "target": recipe.target}
    mine = [domain for name, domain in domains.items() if domain.layout == layout and side in (None, name)]
    by_globs = LAYOUTS[layout].by_globs
    if by_globs and len(mine) == 2:
        mine = [domain for domain in mine if domain.root is not None and _same(domain.root, root)]
    if len(mine) == 2 and not _alike(*mine):
        raise UsageError(f"layout {layout}: the recipe's source or its target? say --domain source|target")
    if mine:
        return mine[0].model_copy(update={"root": user_path(root).absolute()})
    if by_globs:
        raise UsageError(
            f"layout {layout}: name the recipe with its globs and ids (--recipe FILE); where source and target are "
            f"both `{layout}`, say which is meant with --domain source or --domain target"
        )
    return Domain(layout=layout, root=root)


def _same(one: Path, other: Path) -> bool:
    return os.path.realpath(user_path(one)) == os.path.realpath(user_path(other))


def audit(
    recipe: Recipe,
    domain: Domain,
    split: str,
    labelled: bool | None,
    progress: Progress,
    side: str | None = None,
) -> tuple[CheckReport, Path]:
    """Check one split and write its skip list; returns the report and the list's file.

    Without `labelled`, labels are looked at where training or evaluation reads them: in the evaluation split, and in
    the training split of the recipe's source. `side` says which domain it is where both are alike, as `domain_of` has
    it. Raises UsageError for another split than train or val.
    """
    checked = _split(split)
    if labelled is None:
        labelled = checked == "val" or labelled_split(recipe, domain, side) == "train"
    report = check(domain, recipe.classes.build(), checked, labelled=labelled, progress=progress)
    return report, write_skip_list(cache_folder(recipe.data), domain, report)


def labelled_split(recipe: Recipe, domain: Domain, side: str | None = None) -> Split:
    """The split of which labels are read: `train` of the recipe's source, and of any data set that is one whole.

    Of globs it is `train` wherever they name labels.
    """
    layout = LAYOUTS[domain.layout]
    if layout.is_whole or domain.labels is not None:
        return "train"
    is_source, is_target = (_alike(domain, one) for one in (recipe.source, recipe.target))
    if not is_source or side == "target" or (is_target and side is None):
        return "val"
    return "train" if domain.split in layout.labelled or domain.split not in layout.splits else "val"


def _alike(one: Domain, other: Domain) -> bool:
    """Whether two domains are the same but for the folder."""
    return one.model_copy(update={"root": None}) == other.model_copy(update={"root": None})


def write_report(path: Path, report: CheckReport, gaps: Comparison | None = None) -> None:
    """The report as JSON, with the comparison if there is one, written whole or not at all."""
    content = report.to_json() | ({"comparison": gaps.to_json()} if gaps is not None else {})
    write_json(path, content, indent=2)


def next_steps(report: CheckReport, recipe: str, skip_list: Path) -> list[str]:
    """What to do after a check, a sentence each."""
    steps = []
    total = report.num_samples + report.left_out.twice
    if report.problems and not report.num_sound:
        steps.append("mend these files and check again: no sample is sound")
        return steps
    if report.problems:
        left_out = (
            f"training leaves out {len(report.skip)} of {counted(total, 'sample')} from now on (skip list: {skip_list})"
        )
        steps.append(
            f"mend these files and check again, or go on: {left_out if report.skip else 'training does without them'}"
        )
    if report.suspicions:
        steps.append("look at what looks wrong: --report check.html shows the five most suspicious pairs")
    if not report.problems and not report.suspicions:
        steps.append("nothing to mend")
    steps.append(f"see a batch as the network will: fastuda data show {recipe}; then: fastuda train {recipe}")
    return steps


def _split(name: str) -> Split:
    if name == "train":
        return "train"
    if name == "val":
        return "val"
    raise UsageError(f"--split {name}: train or val (a split of another name is target.split of the recipe)")
