"""Where a studio's own changes lie between runs: a btrfs image that each run mounts for itself, or a plain folder.

The image is sparse, its size is the quota and a quarter (a snapshot that is being uploaded pins what was just deleted).
It is mounted inside the run's own mount namespace with a loop device that frees itself, so that nothing stays behind
however the run ends. Standard library only: the launcher uses it.
"""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from portico_gateway.compute.local.syscalls import (
    MS_BIND,
    MS_NOATIME,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_REMOUNT,
    mount,
)

IMAGE = "volume.img"
FOLDER = "folder"
OPTIONS = "loop,discard,noatime,nosuid,nodev,commit=5,metadata_ratio=4"
"""No compression: checkpoints compress, and figures stay honest. On a full disk what was deleted is free again after
a commit, every 5 s instead of 30; with room set aside for metadata, while data comes in, mostly at once."""
SMALLEST = 256 * 1024**2  # btrfs with single profiles needs 109 MiB; below that much it is full at once
COMMAND_TIMEOUT = 60.0  # seconds; mkfs on a sparse image takes 20 ms, on a slow disk a second


class VolumeFault(OSError):
    """The volume cannot be made or mounted; the sentence says why."""


def image_bytes(quota: int) -> int:
    return max(quota + quota // 4, SMALLEST)


def prepare_image(image: Path, size: int) -> bool:
    """Make the image or let a smaller one grow; True when it is new. Raises VolumeFault, leaving none behind."""
    if image.exists():
        if image.stat().st_size < size:
            os.truncate(image, size)
        return False
    image.parent.mkdir(parents=True, exist_ok=True)
    unfinished = image.with_suffix(".new")
    try:
        with unfinished.open("wb") as file:
            file.truncate(size)
        unfinished.chmod(0o600)
        _run("mkfs.btrfs", "-q", "-f", "-m", "single", "-d", "single", str(unfinished))
        unfinished.rename(image)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return True


def mount_image(image: str, target: str) -> None:
    """Mount in the caller's namespace."""
    _run("mount", "-t", "btrfs", "-o", OPTIONS, image, target)
    with contextlib.suppress(VolumeFault):  # only when the image has grown since it was made
        _run("btrfs", "filesystem", "resize", "max", target)


def mount_folder(folder: str, target: str) -> None:
    mount(folder, target, flags=MS_BIND)
    kept = os.statvfs(target).f_flag & (MS_NOEXEC | MS_NOATIME)  # flags that a user namespace may not take off
    mount("", target, flags=MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV | kept)


def drop(folder: Path) -> None:
    """Remove a volume's folder with all in it; a missing one is fine. Subvolumes left in a plain folder go, too."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        _run("rm", "-rf", "--one-file-system", str(folder))


def loop_devices(image: Path) -> list[str]:
    """Loop devices of this machine that stand on `image`, deleted or not."""
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if backing.read_text().strip().removesuffix(" (deleted)") == str(image):
                found.append(f"/dev/{backing.parent.parent.name}")
    return found


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT)
    except FileNotFoundError:
        raise VolumeFault(f"the program '{command[0]}' is missing on this machine") from None
    except subprocess.TimeoutExpired:
        raise VolumeFault(f"'{command[0]}' took longer than {COMMAND_TIMEOUT:.0f} s") from None
    if done.returncode != 0:
        raise VolumeFault(f"'{command[0]}' failed: {done.stderr.strip()[:300]}")
