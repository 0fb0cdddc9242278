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
    """As `mounted_btrfs`, but skips the test on a machine that cannot."""
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")
    with contextlib.ExitStack() as stack:
        try:
            point = stack.enter_context(mounted_btrfs(folder, size))
        except subprocess.CalledProcessError as error:
            pytest.skip(f"btrfs on a loop device does not work here: {error.stderr.strip()}")
        yield point


@contextlib.contextmanager
def mounted_btrfs(folder: Path, size: int) -> Iterator[Path]:
    """A volume below `folder` with a subvolume `current`. Raises CalledProcessError."""
    image, point = folder / "volume.img", folder / "volume"
    with image.open("wb") as file:
        file.truncate(size)
    point.mkdir()
    _run("mkfs.btrfs", "-q", "-f", "-m", "single", "-d", "single", str(image))
    _run("mount", "-t", "btrfs", "-o", "loop,noatime,nosuid,nodev", str(image), str(point))
    try:
        _run("btrfs", "-q", "subvolume", "create", str(point / "current"))
        yield point
    finally:
        _run("umount", str(point))
        image.unlink()


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, text=True)
