"""What the tests of a card came to, out of pytest's report."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

_BAD = ("failure", "error")
_RAN = "properties/property[@name='ran']"
"""As `gentle_end` marks a test that came to its end."""


def read_report(path: Path) -> dict[str, Any] | None:
    """Numbers of tests passed, failed (errors too) and skipped, and the names of the failed; None without a report."""
    try:
        cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return None
    failed = [case for case in cases if any(case.find(kind) is not None for kind in _BAD)]
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {
        "question": "tests",
        "passed": sum(case.find(_RAN) is not None for case in cases if case not in failed),
        "failed": len(failed),
        "skipped": skipped,
        "names": [f"{case.get('classname')}::{case.get('name')}" for case in failed],
    }
