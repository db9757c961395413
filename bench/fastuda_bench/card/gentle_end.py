"""A plugin of pytest: SIGTERM ends the tests as Ctrl-C would, so that the report of those that ran is written."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Called by pytest before the first test."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
