"""A file written once and read back, that moves into memory when the disk is full.

A studio whose disk is full needs its checkpoint most: the few megabytes of notes it takes must not stand in the way.
"""

import errno
import os
from pathlib import Path
from typing import BinaryIO

_PIECE = 1024 * 1024
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Spool:
    """Append with `write`, read with `reader`; `install` gives it its name, `discard` drops it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._in_memory = False
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self._file, self._in_memory = os.memfd_create("spool"), True
        self._buffer = bytearray()
        self._written = 0

    def write(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= _PIECE:
            self.flush()

    def flush(self) -> None:
        while self._buffer:
            try:
                count = os.write(self._file, self._buffer)
            except OSError as error:
                if self._in_memory or error.errno not in _FULL:
                    raise
                self._move()
                continue
            self._written += count
            del self._buffer[:count]

    def reader(self) -> BinaryIO:
        """All that was written so far, from the beginning."""
        self.flush()
        return os.fdopen(os.open(f"/proc/self/fd/{self._file}", os.O_RDONLY | os.O_CLOEXEC), "rb", buffering=_PIECE)

    def install(self, target: Path) -> bool:
        """Put it in place of `target`, if the disk takes it."""
        try:
            self.flush()
            if self._in_memory:
                with self.reader() as source, self._path.open("wb") as copy:
                    while piece := source.read(_PIECE):
                        copy.write(piece)
            self._path.replace(target)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            return False
        finally:
            self.discard()
        return True

    def discard(self) -> None:
        """May be repeated."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._path.unlink(missing_ok=True)

    def _move(self) -> None:
        memory = os.memfd_create("spool")
        os.lseek(self._file, 0, os.SEEK_SET)
        left = self._written
        while left and (piece := os.read(self._file, min(_PIECE, left))):
            os.write(memory, piece)
            left -= len(piece)
        os.close(self._file)
        self._path.unlink(missing_ok=True)
        self._file, self._in_memory = memory, True
