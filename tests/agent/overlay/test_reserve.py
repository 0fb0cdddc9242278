"""Room that people cannot fill: held on a volume of its own, never on the machine's disk."""

import errno
import os
from pathlib import Path

import pytest

from portico_agent.overlay.reserve import hold_reserve
from portico_agent.overlay.volume import Volume
from support.btrfs_volume import MIB, btrfs_volume


def test_folder_on_the_machines_disk_holds_nothing(tmp_path: Path) -> None:
    assert hold_reserve(Volume(path=tmp_path, kind="overlay")) == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.root
def test_tenth_of_the_volume_cannot_be_filled_and_takes_no_room_outside(tmp_path: Path) -> None:
    with btrfs_volume(tmp_path) as point:
        volume = Volume(path=point, kind="overlay")
        assert hold_reserve(volume) == hold_reserve(volume) == 256 * MIB // 10  # holding it again changes nothing
        written = fill(point / "current" / "filler")
        assert written < (256 - 25) * MIB
        assert (point / "reserve").stat().st_size == 256 * MIB // 10
        assert (tmp_path / "volume.img").stat().st_blocks * 512 < written + 12 * MIB


@pytest.mark.root
def test_full_volume_is_used_without(tmp_path: Path) -> None:
    with btrfs_volume(tmp_path) as point:
        fill(point / "current" / "filler")
        assert hold_reserve(Volume(path=point, kind="overlay")) == 0


def fill(file: Path) -> int:
    """Bytes that went in until the disk was full."""
    written = 0
    with file.open("wb", buffering=0) as target:
        try:
            while True:
                written += target.write(os.urandom(MIB))
        except OSError as error:
            assert error.errno == errno.ENOSPC
    return written
