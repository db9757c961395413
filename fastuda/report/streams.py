"""Text streams on full disks and in pipes that nobody reads: somebody decides what comes of what cannot be written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any


class GuardedStream:
    """A text stream whose writes hand their OSErrors to `refused`, and are over then unless it raises.

    Around another one it stands in its place. What could not be written may be tried again with what comes next.
    """

    def __init__(self, stream: IO[str], refused: Callable[[OSError], None]) -> None:
        self.stream: IO[str] = stream.stream if isinstance(stream, GuardedStream) else stream
        self._refused = refused

    def write(self, text: str) -> int:
        """Write, or have it refused."""
        with self._guarded():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or have it refused."""
        with self._guarded():
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._refused(error)
