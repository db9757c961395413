"""A run's checkpoints on disk: the last few of them, the newest sound one found, the disk looked at first."""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from fastuda.errors import FastudaError, UnreadableError
from fastuda.files.disk import readable, sweep
from fastuda.runs.checkpoint.notes import STAGES, StageName
from fastuda.runs.checkpoint.snapshot import Snapshot
from fastuda.runs.checkpoint.state_file import SavedState, read_state, write_state

log = logging.getLogger(__name__)

_NAME = re.compile(r"(source_only|adapted)-(\d{7,})\.state\.safetensors")
_HEADROOM = 1 << 20
"""Bytes for headers, logs and whatever else is written meanwhile."""


@dataclass(frozen=True, order=True)
class StateFile:
    """A checkpoint's place in its run, told from its name; later ones are greater."""

    stage: int
    iteration: int
    path: Path


class CheckpointStore:
    """The folder with a run's states, each in a file that is named by stage and iteration."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self._keep = keep

    def files(self) -> list[StateFile]:
        """All states, the newest first; damaged ones too. FastudaError for a folder that cannot be looked into."""
        found = []
        for path in self._entries():
            if match := _NAME.fullmatch(path.name):
                stages: tuple[str, ...] = STAGES
                found.append(StateFile(stages.index(match[1]), int(match[2]), path))
        return sorted(found, reverse=True)

    def _entries(self) -> list[Path]:
        try:
            return list(self.folder.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise FastudaError(f"{self.folder}: cannot be looked into ({error.strerror})") from error

    def path(self, stage: StageName, iteration: int) -> Path:
        """Where a state goes."""
        return self.folder / f"{stage}-{iteration:07d}.state.safetensors"

    def newest_sound(self, *, set_aside: bool = False) -> SavedState:
        """The newest state whose content is what was written; says which newer ones are damaged.

        `set_aside` renames those, so that they are not counted among the last few. Raises FastudaError when there is no
        state, or none that is sound, and, nothing renamed, when the system does not let one be read: it may be sound.
        """
        damaged: list[tuple[Path, str]] = []
        files = self.files()
        for number, file in enumerate(files, 1):
            try:
                saved = read_state(file.path)
                if (saved.stage, saved.iteration) != (STAGES[file.stage], file.iteration):
                    raise FastudaError(f"{file.path}: holds iteration {saved.iteration} of {saved.stage}")
            except UnreadableError as error:
                elder = "".join(f", or move it away to go on from its elder {e.path.name}" for e in files[number:][:1])
                raise UnreadableError(
                    f"{error}: see that it can be read and go on with --resume{elder}", error.reason
                ) from error
            except FastudaError as error:
                damaged.append((file.path, str(error)))
                continue
            for path, line in damaged:
                log.warning("%s; the one before it is used: %s", line, file.path.name)
                if set_aside:
                    with contextlib.suppress(OSError):
                        path.replace(path.with_name(f"{path.name}.damaged"))
            return saved
        if damaged:
            raise FastudaError(
                "\n".join(line for _, line in damaged)
                + "\nno sound checkpoint is left of this run; start it anew in another --run folder, "
                f"from its network if one is sound: --init {self.folder / 'adapted-last.safetensors'}"
            )
        raise FastudaError(f"{self.folder}: no checkpoint to resume from; start the run without --resume")

    def require_room(self, num_bytes: int) -> None:
        """FastudaError unless the disk has room for a checkpoint of that size."""
        try:
            free = shutil.disk_usage(self.folder).free
        except OSError as error:
            raise FastudaError(f"{self.folder}: the checkpoints' folder is gone ({error.strerror})") from error
        if free < num_bytes + _HEADROOM:
            kept = self.files()
            there = f"; the run goes on from {kept[0].path.name} with --resume" if kept else ""
            raise FastudaError(
                f"{self.folder}: a checkpoint needs {readable(num_bytes + _HEADROOM)}, and {readable(free)} are free "
                f"on the disk: make room{there}"
            )

    def write(self, snapshot: Snapshot) -> Path:
        """Write a state, whole and durable, and then delete all but the last few. Raises FastudaError."""
        path = self.path(snapshot.stage, snapshot.iteration)
        write_state(path, snapshot)
        for file in self.files()[self._keep :]:
            if file.path != path:
                with contextlib.suppress(OSError):
                    file.path.unlink()
        return path

    def sweep(self) -> None:
        """Delete what killed writers left."""
        if swept := sweep(self.folder):
            log.info("%s: %d half-written files of a killed run deleted", self.folder, swept)
