"""Which of a job's processes this one is, as torchrun tells it by its environment."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastuda.errors import UsageError

_START_TIME = 19
"""Of the fields behind a process's name in /proc/PID/stat: ticks from the machine's start to its own."""
_NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True)
class Place:
    """One process of a job; without torchrun the only one."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Among the ranks of its machine."""
    local_size: int = 1
    """Ranks of its machine."""
    num_restarts: int = 0
    """How often torchrun has started all of the job anew."""
    launched: bool = False
    """Whether torchrun started it."""

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] | None = None) -> Place:
        """As the environment has it; UsageError where it says a part of it or what is no number."""
        found = os.environ if environment is None else environment
        said = {name: found[name] for name in _NAMES if name in found}
        if not said:
            return cls()
        launched = "TORCHELASTIC_RUN_ID" in found
        if said.keys() != set(_NAMES):
            if not launched and said.get("WORLD_SIZE", "1") == "1":
                return cls()  # of a scheduler that starts one process
            missing = ", ".join(name for name in _NAMES if name not in said)
            raise UsageError(
                f"the environment names {', '.join(said)} and not {missing}: start several processes with torchrun "
                "(`torchrun --nproc-per-node N -m fastuda_cli train …`), which sets them all"
            )
        try:
            rank, size, local_rank, local_size = (int(said[name]) for name in _NAMES)
            restarts = int(found.get("TORCHELASTIC_RESTART_COUNT", "0"))
        except ValueError as error:
            raise UsageError(f"the environment's {', '.join(_NAMES)} have to be numbers: {error}") from error
        if not (0 <= rank < size and 0 <= local_rank < local_size <= size):
            raise UsageError(f"the environment says rank {rank} of {size}, {local_rank} of {local_size} here")
        return cls(rank, size, local_rank, local_size, restarts, launched)

    def began(self) -> float:
        """The time of `time.monotonic` from which a job's allowance counts: torchrun's own start, which no restart of
        its ranks moves; now, without torchrun.
        """
        if not self.launched:
            return time.monotonic()
        try:
            fields = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()
            return float(fields[_START_TIME]) / os.sysconf("SC_CLK_TCK")
        except (OSError, IndexError, ValueError):
            return time.monotonic()

    @property
    def told(self) -> str:
        """Rank and host, as a message has them."""
        return f"rank {self.rank} on {platform.node()}"
