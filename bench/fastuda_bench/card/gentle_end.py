"""A plugin of pytest: SIGTERM ends the tests as Ctrl-C would, so that the report of those that ran is written."""

from __future__ import annotations

import signal

import pytest


def pytest_configure() -> None:
    """Called by pytest before the first test."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Mark a test whose call came to its end: in pytest's report one that was cut off looks like one that passed."""
    item.user_properties.append(("ran", True))
