"""Look at every file of a data set before training: what is missing, damaged or mislabelled, and what it holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastuda.classes import CITYSCAPES_TRAIN_IDS, IGNORE_INDEX, ClassSet
from fastuda.data.checking.label_look import LabelLook, look_at
from fastuda.data.checking.report import CheckReport, Problem, Suspect
from fastuda.data.checking.suspicion import (
    Suspicion,
    class_suspicions,
    damage_suspicion,
    foreground_suspicion,
    label_suspicions,
)
from fastuda.data.parallel import run_parallel
from fastuda.data.reading.faults import FaultKind, SampleError, size_fault
from fastuda.data.reading.images import read_colour, read_file, turn
from fastuda.data.reading.jpeg import jpeg_damage
from fastuda.data.reading.labels import id_table, read_label, unknown_fault
from fastuda.data.reading.listing import Sample
from fastuda.data.reading.samples import Split, data_root, find_samples
from fastuda.layouts import FOLDER, LAYOUTS
from fastuda.printable import on_one_line
from fastuda.recipe import Domain

_NUM_SUSPECTS = 5


@dataclass(frozen=True)
class _Finding:
    """What one sample's files gave; `look` is of a label that could be read."""

    problems: list[Problem]
    size: str | None
    look: LabelLook | None
    turned: int = 1
    """The image's EXIF orientation."""
    damage: str | None = None
    """What is wrong with the structure of a JPEG that could be decoded all the same."""

    @property
    def counts(self) -> dict[int, int]:
        """Pixels by label value; none for labels that could not be read."""
        return {} if self.look is None else self.look.counts


def check(
    domain: Domain,
    classes: ClassSet,
    split: Split,
    *,
    labelled: bool,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Decode every image, and with `labelled` every label, and report each fault with its file.

    `progress(done, total)` is called after each sample. FastudaError when the layout cannot be
    listed at all; faults of single files never raise.
    """
    listing = find_samples(domain, split, labelled=labelled)
    report = CheckReport(domain.layout, str(data_root(domain)), split, labelled, len(listing.samples))
    report.problems += [_lonely("no label", path) for path in listing.without_label]
    report.problems += [_lonely("no image", path) for path in listing.without_image]
    report.problems += [_double(name, path, paths) for name, paths in listing.twice.items() for path in paths]
    findings: dict[str, _Finding] = {}
    with closing(run_parallel(lambda item: _look(item, domain, classes), listing.samples, workers)) as looks:
        for sample, finding in looks:
            findings[sample.name] = finding
            if progress:
                progress(len(findings), len(listing.samples))
    report.sizes = dict(Counter(finding.size for finding in findings.values() if finding.size).most_common())
    for sample in listing.samples:
        report.problems += findings[sample.name].problems
    converted = _converted(listing.samples, findings, domain)
    report.problems += converted
    damages = {name: finding.damage for name, finding in findings.items() if finding.damage is not None}
    report.suspicions += damage_suspicion({sample.name: sample.image for sample in listing.samples}, damages)
    if labelled:
        _count_classes(report, listing.samples, findings, domain, classes)
        _suspect(report, listing.samples, findings, domain, classes)
    report.left_out = listing.left_out(len(set(report.skip) & findings.keys()))
    return report


def _lonely(kind: FaultKind, path: Path) -> Problem:
    return Problem(None, kind, str(path), f"{kind.removeprefix('no ')} missing, so the file is not used")


def _double(name: str, path: Path, paths: list[Path]) -> Problem:
    others = ", ".join(on_one_line(other) for other in paths if other != path)
    detail = (
        f"stands for the same sample ({on_one_line(name)}) as {others}, and only one can be meant; "
        "move the other away, or, if both are samples, let a wildcard of the glob tell them apart"
    )
    return Problem(name, "two files", str(path), detail, tuple(map(str, paths)))


def _look(sample: Sample, domain: Domain, classes: ClassSet) -> _Finding:
    problems: list[Problem] = []
    image_size: tuple[int, int] | None = None
    look: LabelLook | None = None
    turned = 1
    damage: str | None = None

    files = tuple(str(path) for path in (sample.image, sample.label) if path is not None)

    def note(error: SampleError) -> None:
        problems.append(Problem(sample.name, error.kind, str(error.path), error.detail, files))

    try:
        data = read_file(sample.image)
        image_size = read_colour(data, sample.image).size
        turned = turn(data)
        damage = jpeg_damage(data)
    except SampleError as error:
        note(error)
    if sample.label is not None:
        try:
            raw = read_label(sample.label, domain.layout)
            height, width = raw.shape
            if image_size is not None and image_size != (width, height):
                note(size_fault(sample.label, image_size, (width, height), turned))
            look = look_at(raw)
            ids = id_table(domain, classes, sample.label)
            unknown = {value: count for value, count in look.counts.items() if not ids.known[value]}
            if unknown:
                note(unknown_fault(unknown, ids, sample.label))
        except SampleError as error:
            note(error)
        except MemoryError:
            note(SampleError("too large", sample.label, "does not fit into this machine's memory; shrink the pair"))
    return _Finding(problems, "{}x{}".format(*image_size) if image_size else None, look, turned, damage)


def _converted(samples: list[Sample], findings: dict[str, _Finding], domain: Domain) -> list[Problem]:
    """Labels that hold train ids where Cityscapes' labelIds are expected, as they were released (`Labels.never_255`).

    One file cannot tell: a tunnel too may hold no id above 18. So 255 must be there, which the data
    sets' own labelIds never hold; or no file of the whole set goes above 18 and there is more of 0
    (road, as a train id) than of 7 (road, as a labelId).
    """
    layout = LAYOUTS[domain.layout]
    if not any(kind.never_255 for kind in layout.labels):
        return []
    train_ids = {*CITYSCAPES_TRAIN_IDS, IGNORE_INDEX}
    expecting_ids = [s for s in samples if s.label and layout.labels_of(s.label.name).never_255]
    seen = [(s, findings[s.name].counts) for s in expecting_ids if findings[s.name].counts]
    alike = [(s, counts) for s, counts in seen if train_ids.issuperset(counts)]
    total: Counter[int] = Counter()
    for _, counts in seen:
        total.update(counts)
    whole_set = len(alike) == len(seen) and total[0] > total[7]
    return [
        Problem(
            sample.name,
            "train ids",
            str(sample.label),
            "looks converted already: train ids where the original labelIds are expected; fetch the "
            f'originals, or use layout "{FOLDER.name}" without `ids`',
        )
        for sample, counts in alike
        if whole_set or IGNORE_INDEX in counts
    ]


def _count_classes(
    report: CheckReport, samples: list[Sample], findings: dict[str, _Finding], domain: Domain, classes: ClassSet
) -> None:
    pixels = np.zeros(256, np.int64)
    skipped = set(report.skip)
    for sample in samples:
        if sample.name in skipped or sample.label is None:
            continue
        train_ids = id_table(domain, classes, sample.label).train_ids
        for value, count in findings[sample.name].counts.items():
            pixels[train_ids[value]] += count
    report.pixels = {name: int(pixels[train_id]) for train_id, name in enumerate(classes.names)}
    report.ignored_pixels = int(pixels[IGNORE_INDEX])


def _suspect(
    report: CheckReport, samples: list[Sample], findings: dict[str, _Finding], domain: Domain, classes: ClassSet
) -> None:
    """Fill in what looks wrong about the sound labels, and the pairs to look at."""
    sound = {s.name: s for s in samples if s.label is not None and s.name not in report.skip}
    looks = {name: look for name in sound if (look := findings[name].look) is not None}
    tables = {name: id_table(domain, classes, s.label).train_ids for name, s in sound.items() if s.label is not None}
    pixels = np.zeros(256, np.int64)
    pixels[: len(classes)], pixels[IGNORE_INDEX] = [*report.pixels.values()], report.ignored_pixels
    if looks:
        report.suspicions += class_suspicions(pixels, classes)
        counts = {name: look.counts for name, look in looks.items()}
        report.suspicions += foreground_suspicion(counts, domain.holds_train_ids)
        report.suspicions += label_suspicions(looks, tables, classes)
    # Turned on their side the sizes tell; upside down, mirrored or square they cannot.
    turned = [name for name in sound if findings[name].turned != 1]
    if turned:
        detail = f"{len(turned)} photographs are turned by their EXIF tag: look whether their labels are turned alike"
        report.suspicions.append(Suspicion("turned", detail, turned))
    report.suspects = _suspects(report, samples, findings)


def _suspects(report: CheckReport, samples: list[Sample], findings: dict[str, _Finding]) -> list[Suspect]:
    """Pairs that can be shown, those with a fault of the label first, then by how many suspicions name them."""
    faults = {problem.sample: problem.detail for problem in report.problems}
    named: dict[str, list[tuple[int, str]]] = {}
    for suspicion in report.suspicions:
        for place, name in enumerate(suspicion.samples):
            named.setdefault(name, []).append((place, suspicion.detail))
    why: dict[str, list[str]] = {}
    for sample in samples:
        if sample.label is None or findings[sample.name].size is None or findings[sample.name].look is None:
            continue
        if sample.name in faults:
            why[sample.name] = [faults[sample.name]]
        elif sample.name in named:
            why[sample.name] = [detail for _, detail in named[sample.name]]
    order = sorted(
        why, key=lambda name: (name not in faults, -len(why[name]), min((p for p, _ in named.get(name, [])), default=0))
    )
    files = {sample.name: sample for sample in samples}
    return [Suspect(name, str(files[name].image), str(files[name].label), why[name]) for name in order[:_NUM_SUSPECTS]]
