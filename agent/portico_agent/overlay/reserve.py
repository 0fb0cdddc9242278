"""Room on the volume that people cannot fill, so that what fits into one volume fits into the next.

A checkpoint of a full disk is restored onto a new one of the same size, where btrfs may lay things out less tightly:
without room to spare the studio could not be started any more.
"""

import contextlib
import os
from pathlib import Path

from portico_agent.overlay.volume import Volume, is_image

NAME = "reserve"
SHARE = 10
"""One part of so many is held."""
MOST = 1024**3
LEAST = 4 * 1024**2


def hold_reserve(volume: Volume) -> int:
    """Bytes held from now on: as much as there is room for, at most the share. 0 on the machine's own disk."""
    file = volume.path / NAME
    if not is_image(volume):
        return 0
    found = os.statvfs(volume.path)
    size = min(found.f_blocks * found.f_frsize // SHARE, MOST)
    while size >= LEAST:
        if _held(file, size):
            return size
        size //= 2
    return 0


def _held(file: Path, size: int) -> bool:
    try:
        with file.open("ab") as held:
            os.posix_fallocate(held.fileno(), 0, size)
    except OSError:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)
        return False
    return True
