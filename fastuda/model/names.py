"""Text out of a stranger's file, fit to be shown on one line of a terminal."""

from __future__ import annotations

_MOST = 100


def is_plain(text: str) -> bool:
    """Whether it is a name as networks have them: short, and every character can be seen."""
    return len(text) <= _MOST * 5 and text.isprintable()


def shown(text: str, most: int = _MOST) -> str:
    """The text's first `most` characters, with escapes for what would break the line or the terminal."""
    cut = text if len(text) <= most else text[:most] + "…"
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in cut
    )
