"""run.json: what a run is made of, and when, where and how it was begun and gone on with."""

from __future__ import annotations

import hashlib
import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from fastuda.errors import FastudaError, UnreadableError
from fastuda.files.disk import write_atomic
from fastuda.runs.identity import Identity

log = logging.getLogger(__name__)

_CHECKSUM = "sha256"


class Beginning(BaseModel):
    """One start or resumption of a run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    date: str
    device: str
    stage: str | None
    """The stage that was gone on with; None for the run's start."""
    iteration: int
    """Iterations of that stage that were done already."""
    forced: list[str] = []
    """The differences that `--force` passed over."""


class RunRecord(BaseModel):
    """The content of run.json."""

    model_config = ConfigDict(extra="forbid")

    identity: Identity
    history: list[Beginning] = []

    def begin(self, device: str, since: tuple[str, int] | None, forced: list[str]) -> None:
        """Add a start, or a resumption from a stage's iteration, now; says where the device is another one."""
        if self.history and self.history[-1].device != device:
            log.warning(
                "the run was on %s and goes on on %s: equal bits are promised on one kind of device alone",
                self.history[-1].device, device,
            )  # fmt: skip
        date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        stage, iteration = since or (None, 0)
        self.history.append(Beginning(date=date, device=device, stage=stage, iteration=iteration, forced=forced))

    def forced(self) -> list[str]:
        """Every difference that was ever passed over."""
        return list(dict.fromkeys(line for beginning in self.history for line in beginning.forced))

    def write(self, path: Path) -> None:
        """Write the file with a checksum over its content; whole, durable."""
        content = self.model_dump()  # as it is: pydantic's own JSON has no names that are no UTF-8
        write_atomic(path, json.dumps({**content, _CHECKSUM: _checksum(content)}).encode() + b"\n", durable=True)

    @classmethod
    def read(cls, path: Path) -> RunRecord:
        """Read the file; FastudaError when it is missing, damaged, or not what fastuda writes.

        UnreadableError when the system does not let it be read.
        """
        try:
            content = json.loads(path.read_text())
            if content.pop(_CHECKSUM) != _checksum(content):
                raise ValueError("its checksum is not that of its content")
            return cls.model_validate(content)
        except FileNotFoundError:
            raise FastudaError(f"{path}: missing, so nothing says what this run is made of") from None
        except OSError as error:
            reason = error.strerror or str(error)
            raise UnreadableError(
                f"{path}: cannot be read ({reason}), so nothing says what this run is made of; see that it can be "
                "read and go on with --resume",
                reason,
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ValidationError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise FastudaError(f"{path}: damaged ({reason}), so nothing says what this run is made of") from error


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
