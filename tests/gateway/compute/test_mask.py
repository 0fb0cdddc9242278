"""The mask, written over a small root made for the test and looked at through a real overlay where we may mount one."""

import os
import stat
from pathlib import Path

import pytest

from portico_gateway.compute.local import mask
from portico_gateway.compute.local.mask import MaskEntry, plan_mask, write_mask


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for folder in (
        "usr/bin",
        "usr/local/lib",
        "etc/ssl/private",
        "etc/app",
        "opt/data/inner",
        "home/ana",
        "data",
        "var/lib/dpkg",
        "var/lib/postgres",
        "var/log/app",
        "run",
    ):
        (root / folder).mkdir(parents=True)
    for name, mode in (
        ("usr/bin/python", 0o755),
        ("etc/passwd", 0o644),
        ("etc/group", 0o644),
        ("etc/shadow", 0o640),
        ("etc/app/open", 0o644),
        ("etc/app/key", 0o600),
        ("opt/data/inner/x", 0o644),
        ("opt/free", 0o644),
        ("home/ana/diary", 0o644),
        ("notes.txt", 0o644),
        ("var/lib/dpkg/status", 0o644),
        ("etc/machine-id", 0o444),
        ("usr/local/lib/token", 0o640),
    ):
        (root / name).write_text("root:hash:1:\n")
        (root / name).chmod(mode)
    (root / "bin").symlink_to("usr/bin")
    return root


def hidden_by(root: Path, *hidden: str, **files: str) -> set[str]:
    return {entry.path for entry in plan_mask(str(root), hidden=hidden, files=files) if entry.kind == "hide"}


def test_what_is_not_on_the_list_is_hidden(root: Path) -> None:
    found = hidden_by(root)
    assert {"data", "notes.txt", "var/lib/postgres", "etc/ssl/private"} <= found
    assert not found & {"bin", "usr", "etc", "opt", "var", "var/lib", "var/lib/dpkg", "home", "run"}


def test_what_others_may_not_read_is_hidden_in_scanned_folders(root: Path) -> None:
    found = hidden_by(root)
    assert {"etc/app/key", "usr/local/lib/token"} <= found
    assert not found & {"etc/app/open", "opt/free", "usr/bin/python"}
    (root / "etc/app").chmod(0o750)
    assert "etc/app" in hidden_by(root)


def test_sockets_and_pipes_are_hidden_in_scanned_folders(root: Path) -> None:
    os.mkfifo(root / "opt/data/pipe", 0o666)
    assert "opt/data/pipe" in hidden_by(root)


def test_a_folder_too_large_to_look_through_is_hidden_whole(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask, "SCAN_LIMIT", 2)
    assert "opt/data" in hidden_by(root)
    assert "opt/free" not in hidden_by(root)


def test_clean_files_take_the_place_of_the_machines_own(root: Path) -> None:
    entries = list(plan_mask(str(root), hidden=(), files={"etc/hosts": "127.0.0.1 localhost\n"}))
    files = {entry.path: entry for entry in entries if entry.kind == "file"}
    assert files["etc/shadow"].content == "root:*:19000:0:99999:7:::\n"
    assert files["etc/shadow"].mode == 0o640
    assert files["etc/machine-id"].content == ""
    assert files["etc/hosts"].content == "127.0.0.1 localhost\n"
    assert "etc/shadow" not in {entry.path for entry in entries if entry.kind == "hide"}


@pytest.mark.root
def test_folders_on_the_way_look_like_the_roots_own(root: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("whiteouts and their attributes are root's to make")
    (root / "opt").chmod(0o711)
    made = tmp_path / "mask"
    made.mkdir()
    write_mask([MaskEntry("opt/data/inner/x", "hide"), MaskEntry("new/folder", "empty", 0o700)], str(made), str(root))
    assert stat.S_IMODE((made / "opt").stat().st_mode) == 0o711
    found = (made / "opt/data/inner/x").lstat()
    assert stat.S_ISCHR(found.st_mode)
    assert found.st_rdev == 0
    assert os.getxattr(made / "new/folder", "trusted.overlay.opaque") == b"y"


@pytest.mark.root
def test_below_what_is_hidden_or_empty_nothing_more_is_made(root: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("whiteouts and their attributes are root's to make")
    made = tmp_path / "mask"
    made.mkdir()
    entries = [
        MaskEntry("opt/data", "hide"),
        MaskEntry("opt/data/inner/x", "hide"),
        MaskEntry("home", "empty", 0o755),
        MaskEntry("home/ana", "hide"),
    ]
    write_mask(entries, str(made), str(root))
    assert stat.S_ISCHR((made / "opt/data").lstat().st_mode)
    assert list((made / "home").iterdir()) == []
