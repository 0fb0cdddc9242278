"""The moment a checkpoint shows: a read-only snapshot where there is btrfs, else the studio held still for a while.

Flush first, snapshot last: what is dirty is written out in small steps while everything runs, so that the snapshot
itself has nothing to wait for.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from portico_agent.checkpoint import kernel
from portico_agent.checkpoint.exclusions import Exclusions
from portico_agent.checkpoint.walk import Walk

SNAPSHOTS = "snap-"
STEP = 8 * 1024 * 1024
"""Bytes written out at a time: with everything at once a program's own fsync waits behind it."""
WORTH_STEPS = 64 * 1024 * 1024
"""Dirty bytes on the machine below which one sync is quick anyway."""
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, _FOLDER)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def can_snapshot(source: Path) -> bool:
    with opened(source) as folder:
        return kernel.is_subvolume(folder)


def flush(source: Path, since: float) -> None:
    """Write out what is dirty below `source`; files untouched since `since` (epoch seconds) are passed over."""
    with opened(source) as folder:
        if _dirty() > WORTH_STEPS:
            for listing in Walk(folder, Exclusions(())):
                for name, info in zip(listing.names, listing.stats, strict=True):
                    if info.st_size > STEP and info.st_ctime >= since - 60:
                        _write_out(listing.handle.number, name)
        kernel.sync_filesystem(folder)


def _write_out(folder: int, name: bytes) -> None:
    with contextlib.suppress(OSError):  # gone, or no file: then there is nothing to write
        descriptor = os.open(name, _FILE, dir_fd=folder)
        try:
            for offset in range(0, os.fstat(descriptor).st_size, STEP):
                kernel.write_out(descriptor, offset, STEP)
        finally:
            os.close(descriptor)


def _dirty() -> int:
    """Bytes waiting to be written on this machine; a lot when that is not told."""
    with contextlib.suppress(OSError, ValueError), Path("/proc/meminfo").open(encoding="ascii") as lines:
        for line in lines:
            if line.startswith("Dirty:"):
                return int(line.split()[1]) * 1024
    return WORTH_STEPS + 1


class Snapshot:
    """A read-only snapshot of the subvolume `source`, beside it, from `take` to `drop`."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._name = f"{SNAPSHOTS}{os.getpid()}"
        self.seconds = 0.0
        """What making it took: everything that writes there waits about that long."""

    @property
    def path(self) -> Path:
        return self._source.parent / self._name

    def take(self) -> None:
        """Raises OSError; ENOSPC when the disk is full to the brim."""
        sweep_snapshots(self._source.parent)
        with opened(self._source) as source, opened(self._source.parent) as parent:
            start = time.monotonic()
            kernel.snapshot(source, parent, self._name)
            self.seconds = time.monotonic() - start

    def drop(self) -> None:
        """A snapshot pins what was deleted since: away with it as soon as it is read."""
        remove_tree(self.path)


def sweep_snapshots(folder: Path) -> None:
    """Snapshots that a killed capture left. Only one capture of a volume runs at a time."""
    for left in folder.glob(f"{SNAPSHOTS}*"):
        remove_tree(left)


def remove_tree(path: Path) -> None:
    """Remove a folder or subvolume with all in it; none is fine. Never follows a link."""
    if not path.exists() and not path.is_symlink():
        return
    with opened(path.parent) as parent:
        try:
            kernel.delete_subvolume(parent, path.name)
        except OSError:  # no subvolume, or without the right to: an empty one can be removed like a folder
            with contextlib.suppress(OSError), opened(path) as folder:
                kernel.make_writable(folder)
            shutil.rmtree(path, ignore_errors=True)
