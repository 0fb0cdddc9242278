"""A log that never grows past its limit: the newest bytes are kept, each at an offset that never changes.

Two files: `NAME` is written, `NAME.1` is what was full before it. Offsets count every byte since the run began.
"""

import contextlib
from pathlib import Path

DEFAULT_LIMIT = 4 * 1024 * 1024
"""Bytes in both files together: a few hours of a chatty tool, and small beside any memory limit of a studio."""


class BoundedLog:
    """Appends and reads back. A full disk loses the newest bytes, never the process that writes here."""

    def __init__(self, path: Path, limit: int = DEFAULT_LIMIT) -> None:
        self.path = path
        self._older = path.with_name(path.name + ".1")
        self._half = max(1, limit // 2)
        self._oldest = 0  # offset of the first byte still kept
        self._start = 0  # offset of the first byte in `path`
        self.end = 0
        for file in (path, self._older):
            file.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        for at in range(0, len(data), self._half):
            self._append(data[at : at + self._half])

    def read(self, offset: int, limit: int) -> tuple[int, bytes]:
        """Up to `limit` bytes from `offset`, or from the oldest kept when that is gone: (first's offset, bytes)."""
        offset = min(max(offset, self._oldest), self.end)
        file, start = (self.path, self._start) if offset >= self._start else (self._older, self._oldest)
        try:
            with file.open("rb") as content:
                content.seek(offset - start)
                return offset, content.read(limit)
        except OSError:
            return offset, b""

    def _append(self, data: bytes) -> None:
        if self.end - self._start + len(data) > self._half and self.end > self._start:
            with contextlib.suppress(OSError):
                self.path.replace(self._older)
                self._oldest, self._start = self._start, self.end
        with contextlib.suppress(OSError), self.path.open("ab", buffering=0) as content:
            self.end += content.write(data)
