"""A small btrfs on a loop device, as a studio's volume is; gone with its block."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

MIB = 2**20


@contextlib.contextmanager
def btrfs_volume(folder: Path, size: int = 256 * MIB) -> Iterator[Path]:
    """Skips the test on a machine that cannot."""
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")
    image, point = folder / "volume.img", folder / "volume"
    with image.open("wb") as file:
        file.truncate(size)
    point.mkdir()
    subprocess.run(["mkfs.btrfs", "-q", "-f", "-m", "single", "-d", "single", str(image)], check=True)
    mounted = subprocess.run(
        ["mount", "-t", "btrfs", "-o", "loop,noatime,nosuid,nodev", str(image), str(point)],
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"btrfs on a loop device does not work here: {mounted.stderr.strip()}")
    try:
        subprocess.run(["btrfs", "-q", "subvolume", "create", str(point / "current")], check=True)
        yield point
    finally:
        subprocess.run(["umount", str(point)], check=True)
        image.unlink()
