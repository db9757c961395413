"""Where a result comes from: command line, versions, date."""

from __future__ import annotations

import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastuda.runtime.device import versions


def provenance() -> dict[str, Any]:
    """`command` as it was typed, `versions` of what the numbers depend on, `date` (UTC)."""
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return {"command": command, "versions": versions(), "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M")}
