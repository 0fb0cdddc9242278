"""Room on the volume that people cannot fill, so that what fits into one volume fits into the next.

A checkpoint of a full disk is restored onto a new one of the same size, where btrfs may lay things out less tightly:
without room to spare the studio could not be started any more.
"""

import contextlib
import os

from portico_agent.checkpoint.kernel import sync_filesystem
from portico_agent.overlay.volume import Volume, is_image

NAME = "reserve"
SHARE = 10
"""One part of so many is held, where there is room for it."""
MOST = 1024**3
LEAST = 4 * 1024**2
FOR_THE_START = 16 * 1024**2
"""Left free on a disk that is nearly full: a tool needs a little to start."""


def hold_reserve(volume: Volume) -> int:
    """Bytes held from now on. 0 on the machine's own disk, and where there is no room."""
    if not is_image(volume):
        return 0
    file = volume.path / NAME
    held = file.stat().st_size if file.exists() else 0
    with contextlib.suppress(OSError), file.open("ab") as target:
        sync_filesystem(target.fileno())  # what is free is known for certain only then
        found = os.fstatvfs(target.fileno())
        room = held + found.f_bavail * found.f_frsize - FOR_THE_START
        size = min(found.f_blocks * found.f_frsize // SHARE, MOST, room)
        if size - held >= LEAST:
            os.posix_fallocate(target.fileno(), 0, size)
            return size
    return held
