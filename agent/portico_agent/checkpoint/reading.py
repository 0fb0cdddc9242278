"""Reading what a walk found: small files whole, large ones block by block, attributes of anything."""

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from portico_agent.checkpoint.walk import Handle
from portico_shared.checkpoint.attributes import is_kept
from portico_shared.checkpoint.digest import digest
from portico_shared.checkpoint.limits import BLOCK_TARGET, MAX_XATTRS

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
SMALL = 256 * 1024
"""Files up to here share blocks; larger ones are cut into blocks of their own."""
ATTRIBUTES = 256 * 1024
"""Bytes of extended attributes kept of one entry; more than four times what ext4 or btrfs hold in practice."""
Attributes = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class SmallFile:
    content: bytes
    digest: bytes
    attributes: Attributes


def read_small(folder: Handle, names: list[bytes], overlay: bool) -> list[SmallFile | OSError]:
    """Each file's content and attributes, or why there is none (FileNotFoundError: it is gone, or no file any more).
    Releases the folder."""
    try:
        return [_read_one(folder.number, name, overlay) for name in names]
    finally:
        folder.release()


def _read_one(folder: int, name: bytes, overlay: bool) -> SmallFile | OSError:
    try:
        descriptor = open_file(folder, name)
    except OSError as error:
        return error
    try:
        size = min(os.fstat(descriptor).st_size, SMALL)
        content = os.read(descriptor, size)
        while len(content) < size and (more := os.read(descriptor, size - len(content))):
            content += more
        return SmallFile(content, digest(content), attributes(descriptor, overlay=overlay))
    except OSError as error:
        return error
    finally:
        os.close(descriptor)


def open_file(folder: int, name: bytes) -> int:
    """A regular file, whatever somebody put in its place meanwhile. Raises FileNotFoundError when it is none."""
    try:
        descriptor = os.open(name, _FILE, dir_fd=folder)
    except OSError as error:
        if isinstance(error, PermissionError):
            raise
        raise FileNotFoundError(error.errno, error.strerror, name) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(name)
    return descriptor


def attributes(where: int | bytes, *, folder: bool = False, overlay: bool) -> Attributes:
    """What a checkpoint keeps of the extended attributes, sorted. `where`: a descriptor, or a path not followed."""
    found: Attributes = []
    room = ATTRIBUTES
    follow = {} if isinstance(where, int) else {"follow_symlinks": False}
    with contextlib.suppress(OSError):  # a file system without attributes, or one gone meanwhile
        for name in os.listxattr(where, **follow)[:MAX_XATTRS]:
            with contextlib.suppress(OSError):
                value = os.getxattr(where, name, **follow)
                raw = os.fsencode(name)
                room -= len(value)
                if room >= 0 and is_kept(raw, value, folder=folder, overlay=overlay):
                    found.append((raw, value))
    return sorted(found)


def path_below(folder: int, name: bytes) -> bytes:
    """A path for calls that take no descriptor of the folder; the name itself is not followed by them."""
    return b"/proc/self/fd/%d/%s" % (folder, name)


@dataclass(slots=True)
class Piece:
    """A run of a large file: data to read, or a hole."""

    offset: int
    length: int
    hole: bool


def pieces(descriptor: int, info: os.stat_result) -> Iterator[Piece]:
    """The whole file: data cut at multiples of a block (so that an edit moves no other cut), holes as they are."""
    position, size = 0, info.st_size
    sparse = info.st_blocks * 512 < size
    while position < size:
        start, end = _data(descriptor, position, size) if sparse else (position, size)
        if start > position:
            yield Piece(position, start - position, True)
        position = start
        while position < end:
            cut = min(end, (position // BLOCK_TARGET + 1) * BLOCK_TARGET)
            yield Piece(position, cut - position, False)
            position = cut


def _data(descriptor: int, position: int, size: int) -> tuple[int, int]:
    """Where the next data begins and ends, at or after `position`."""
    try:
        start = os.lseek(descriptor, position, os.SEEK_DATA)
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
    except OSError:  # ENXIO: only a hole is left
        return size, size
    return min(start, size), min(end, size)


class LargeFile:
    """A descriptor read from by several threads; closed when the last piece was read."""

    def __init__(self, descriptor: int) -> None:
        self._handle = Handle(descriptor)

    def source(self, piece: Piece) -> "PieceSource":
        return PieceSource(self._handle.hold(), piece)

    def close(self) -> None:
        self._handle.release()


class PieceSource:
    """Call it once, in any thread."""

    __slots__ = ("_handle", "_piece")

    def __init__(self, handle: Handle, piece: Piece) -> None:
        self._handle = handle
        self._piece = piece

    def __call__(self) -> bytes:
        """The piece; zeros where the file has shrunk meanwhile."""
        try:
            data = os.pread(self._handle.number, self._piece.length, self._piece.offset)
            while len(data) < self._piece.length:
                more = os.pread(self._handle.number, self._piece.length - len(data), self._piece.offset + len(data))
                if not more:
                    return data.ljust(self._piece.length, b"\0")
                data += more
            return data
        finally:
            self._handle.release()
