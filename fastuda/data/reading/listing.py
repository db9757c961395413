"""What a data set's folders hold: the samples, and whatever is left out, counted and named."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fastuda.data.reading.globs import Found
from fastuda.errors import FastudaError
from fastuda.printable import on_one_line

FilesByName = dict[str, Path]
"""By sample name."""

_SHOWN = 3
# What tools of this field write beside a picture of that name.
_OTHER_TOOLS = re.compile(
    r"[_.-](label_?train_?ids?|label_?ids?|train_?ids?|instance_?ids?|labels?|gt|masks?|seg|semantic|colou?r|vis|overlay|"
    r"thumb|thumbnail|preview)$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Sample:
    """One image and, where asked for, its label; `name` is unique within the listing."""

    name: str
    image: Path
    label: Path | None


@dataclass(frozen=True)
class LeftOut:
    """How many files or samples of a split are not used, and why."""

    without_label: int = 0
    """Images without a label of their name."""
    without_image: int = 0
    """Labels without an image of their name."""
    twice: int = 0
    """Samples for which two files stand."""
    skipped: int = 0
    """Samples on the skip list of `fastuda data check`."""
    unlisted: int = 0
    """Images that the recipe's `listing` does not name."""
    other_suffix: int = 0
    """Images that the recipe's glob would find under another suffix."""
    beside: int = 0
    """Files that other tools wrote beside the data."""

    def to_json(self) -> dict[str, int]:
        """The numbers by name."""
        return asdict(self)

    def __str__(self) -> str:
        """`2 images without a label, 1 sample on the skip list`; empty when nothing is left out."""
        words = {
            "without_label": ("image", "without a label"),
            "without_image": ("label", "without an image"),
            "twice": ("sample", "with two files"),
            "skipped": ("sample", "on the skip list"),
            "unlisted": ("image", "not in the list of names"),
            "other_suffix": ("image", "under a suffix that the glob leaves out"),
            "beside": ("file", "of other tools beside the data"),
        }
        counts = [(count, *words[name]) for name, count in self.to_json().items() if count]
        return ", ".join(f"{counted(count, noun)} {why}" for count, noun, why in counts)


@dataclass(frozen=True)
class Listing:
    """A data set's samples, sorted by name, and every file that is none of them."""

    samples: list[Sample]
    without_label: list[Path] = field(default_factory=list)
    without_image: list[Path] = field(default_factory=list)
    twice: dict[str, list[Path]] = field(default_factory=dict)
    """Sample name → the files of which one too many stands for it; such a sample is not in `samples`."""
    unlisted: list[Path] = field(default_factory=list)
    other_suffix: list[Path] = field(default_factory=list)
    beside: list[Path] = field(default_factory=list)

    def left_out(self, num_skipped: int = 0) -> LeftOut:
        """The numbers of all that is no sample, and of the samples that a skip list names."""
        return LeftOut(
            len(self.without_label),
            len(self.without_image),
            len(self.twice),
            num_skipped,
            len(self.unlisted),
            len(self.other_suffix),
            len(self.beside),
        )

    def require_partners(self, allowed: float, where: Path) -> None:
        """FastudaError when more than the share `allowed` of the images, or of the labels, has no partner."""
        for what, other, lonely in (("images", "label", self.without_label), ("labels", "image", self.without_image)):
            total = len(self.samples) + len(self.twice) + len(lonely)
            if len(lonely) > allowed * total:
                raise FastudaError(
                    f"{where}: {len(lonely)} of {total} {what} have no {other} of their name, such as "
                    f"{shown(lonely)}; more than {100 * allowed:g} % is taken for a mistake: mend the names or the "
                    f"globs, or allow it with --set data.max_unpaired={_ceiling(len(lonely) / total):g}"
                )


def counted(count: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def gather(found: Iterable[Found]) -> tuple[FilesByName, dict[str, list[Path]]]:
    """Files by name, and the names that several files bear."""
    by_name: dict[str, list[Path]] = {}
    for one in found:
        # A Mac writes ü as two characters, others as one.
        by_name.setdefault(unicodedata.normalize("NFC", one.name), []).append(one.path)
    single = {name: paths[0] for name, paths in by_name.items() if len(paths) == 1}
    return single, {name: paths for name, paths in by_name.items() if len(paths) > 1}


def pair(images: FilesByName, labels: FilesByName, twice: dict[str, list[Path]]) -> Listing:
    """Images and labels by name; a lonely file that another tool derived from a sample is no fault."""
    claimed = {**images, **dict.fromkeys(twice, Path())}
    lonely_images = [name for name in sorted(images.keys() - labels.keys()) if name not in twice]
    lonely_labels = [name for name in sorted(labels.keys() - images.keys()) if name not in twice]
    copies = {name for name in lonely_images if is_derived(name, claimed)}
    paired = claimed.keys() & {**labels, **dict.fromkeys(twice)}
    written = {name for name in lonely_labels if _begins_as_one_of(name, paired)}
    return Listing(
        [
            Sample(name, images[name], labels[name])
            for name in sorted(images.keys() & labels.keys())
            if name not in twice
        ],
        [images[name] for name in lonely_images if name not in copies],
        [labels[name] for name in lonely_labels if name not in written],
        twice,
        beside=[images[name] for name in sorted(copies)] + [labels[name] for name in sorted(written)],
    )


def is_derived(name: str, known: Collection[str]) -> bool:
    """Whether a file of that name was made from a known sample's: `1_color`, `1_thumb` beside `1`."""
    match = _OTHER_TOOLS.search(name)
    return match is not None and name[: match.start()] in known


def shown(paths: list[Path]) -> str:
    """The first few of some files, for a message."""
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(on_one_line(path) for path in paths[:_SHOWN]) + more


def _begins_as_one_of(name: str, known: Collection[str]) -> bool:
    """Whether a label of that name is somebody's copy of a known sample's: `1_labelTrainIds` beside `1`.

    `1_2` is none: it is the label of an image that is lost.
    """
    return any(name[: match.start()] in known for match in re.finditer(r"[_.-](?=[^\W\d])", name))


def _ceiling(share: float) -> float:
    return min(1.0, int(share * 100 + 1) / 100)
