"""One object on its way into the local folder: counted and hashed piece by piece, then linked to its name."""

import os
from pathlib import Path

from blake3 import blake3
from crc32c import crc32c

from portico_gateway.errors import BadRequest, Conflict, Unavailable
from portico_gateway.objects.checksums import spelt
from portico_gateway.objects.grants import ObjectGrant


class StoreFull(Unavailable):
    """507 at the store's own door."""

    def __init__(self) -> None:
        super().__init__("the disk that holds the checkpoints is full: free some space on it, nothing is lost so far")


class Incoming:
    """All of it blocks: call it in a thread, one call at a time. `discard` must follow, whatever happened."""

    def __init__(self, temporary: Path, grant: ObjectGrant) -> None:
        self._temporary = temporary
        self._grant = grant
        self._file = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        self._size = self._crc = 0
        self._hash = blake3()

    def write(self, piece: bytes) -> None:
        """Raises BadRequest beyond the granted size."""
        self._size += len(piece)
        if self._size > self._grant.size:
            raise BadRequest("more bytes than the grant is for")
        self._crc = crc32c(piece, self._crc)
        self._hash.update(piece)
        view = memoryview(piece)
        while view:
            view = view[os.write(self._file, view) :]

    def finish(self, name: Path) -> None:
        """Durable under its name. Raises BadRequest when it is not what was granted, Conflict when it is there."""
        if self._size != self._grant.size:
            raise BadRequest(f"{self._size} bytes came, the grant is for {self._grant.size}")
        if spelt(self._crc) != self._grant.crc32c:
            raise BadRequest("the content does not match the checksum in the grant")
        if self._hash.hexdigest() != name.name:
            raise BadRequest("the content does not match its name, which is its blake3 hash")
        os.fsync(self._file)
        try:
            os.link(self._temporary, name)
        except FileExistsError:
            raise Conflict("this object is there already, and never changes") from None
        sync_folder(name.parent)

    def discard(self) -> None:
        """Nothing of it stays but what `finish` linked. May be repeated."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
