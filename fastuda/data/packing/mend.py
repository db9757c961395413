"""A packed file that was damaged since, made anew from its source while training reads on."""

from __future__ import annotations

import logging
import threading
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastuda.data.packing import pack, pack_index
from fastuda.data.packing.pack import PackedKind, Record
from fastuda.data.packing.pack_sample import Job, make_image, make_label
from fastuda.data.reading.faults import SampleError
from fastuda.data.reading.images import read_file
from fastuda.data.reading.labels import decode_label
from fastuda.data.reading.listing import Sample
from fastuda.errors import FastudaError
from fastuda.files.disk import make_folder, write_atomic

log = logging.getLogger(__name__)

_SAID = 20
"""How many mended files are named one by one: of a cache folder that was deleted, all are."""

_PATIENCE = 10.0
"""Seconds for which training waits for another process: one that mends lets go at once, one that packs after hours."""


class Mender:
    """Makes single packed files anew; what `Packed.mend` is. Any thread may call it.

    `lock` holds the pack's folder against other processes, which it waits for as many seconds as it is told. Where the
    folder cannot be written, or another process does not let go of it, the bytes made are used and not kept.
    """

    def __init__(
        self,
        job: Job,
        key: dict[str, Any],
        samples: list[Sample],
        lock: Callable[[float], AbstractContextManager[None]],
    ) -> None:
        self._job = job
        self._key = key
        self._samples = {sample.name: sample for sample in samples}
        self._lock = lock
        self._said: set[Path] = set()
        self._unwritable = False
        self._saying = threading.Lock()

    def __call__(self, record: Record, kind: PackedKind, wrong: str) -> tuple[bytes, Record]:
        """The packed file's bytes, and the record that then holds: the same but where another version encoded anew.

        SampleError naming the packed file and its source when that has changed, is gone or is damaged.
        """
        name = record.file(kind)
        sample = self._samples[record.name]
        source = sample.image if kind == pack.IMAGES else sample.label
        if name is None or source is None:
            raise ValueError(f"{record.name} has no packed file among the {kind}")
        path = self._job.folder / kind / name
        content = self._made_anew(record, kind, path, source, wrong)
        place = pack.KINDS.index(kind)
        mended = replace(
            record,
            packed_bytes=_with(record.packed_bytes, place, len(content)),
            packed_checksums=_with(record.packed_checksums, place, zlib.crc32(content)),
        )
        try:
            make_folder(path.parent)
            with self._lock(0 if self._unwritable else _PATIENCE):
                write_atomic(path, content)
                if mended != record or not (self._job.folder / pack.INDEX).exists():
                    pack_index.remember(self._job.folder, mended, self._key)
        except FastudaError as error:
            self._say_unwritable(error)
        self._say(path, source)
        return content, mended

    def _made_anew(self, record: Record, kind: PackedKind, path: Path, source: Path, wrong: str) -> bytes:
        try:
            data = read_file(source)
            if zlib.crc32(data) != record.checksums[pack.KINDS.index(kind)]:
                raise SampleError(
                    "damaged",
                    source,
                    "has changed since it was packed; run again: what has changed is packed anew then",
                )
            if kind == pack.IMAGES:
                return make_image(data, source, self._job)[0]
            return make_label(decode_label(data, source, self._job.domain.layout), source, self._job)[0]
        except SampleError as error:
            raise SampleError(
                "damaged", path, f"damaged since it was packed (it {wrong}), and cannot be made anew: {error}"
            ) from error

    def _say(self, path: Path, source: Path) -> None:
        with self._saying:
            if path in self._said:
                return
            self._said.add(path)
            said = len(self._said)
        if said > _SAID:
            return
        log.warning("%s: damaged since it was packed; made anew from %s", path, source)
        if said == _SAID:
            log.warning(
                "%s: %d packed files were damaged so far; further ones are made anew without a line each",
                self._job.folder, _SAID,
            )  # fmt: skip

    def _say_unwritable(self, error: FastudaError) -> None:
        with self._saying:
            if self._unwritable:
                return
            self._unwritable = True
        log.warning(
            "what is made anew for %s cannot be kept, and is made at every reading: %s", self._job.folder, error
        )


def _with(numbers: list[int], place: int, number: int) -> list[int]:
    return [number if i == place else one for i, one in enumerate(numbers)]
