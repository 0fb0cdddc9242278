# ruff: noqa: PTH101, PTH102, PTH118, PTH123, PTH211
# Names in here are bytes, and folders descriptors: pathlib has neither.
"""Trees that are hard to keep, and a comparer that sees every difference a checkpoint must not make."""

import contextlib
import os
import random
import socket
import stat
import struct
from pathlib import Path
from typing import Any

Look = dict[bytes, dict[str, Any]]
"""What is seen of a tree: a dictionary of facts for each path."""

ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, rights, who)
    for tag, rights, who in (
        (0x01, 6, 0xFFFFFFFF), (0x02, 4, 1234), (0x04, 4, 0xFFFFFFFF), (0x10, 4, 0xFFFFFFFF), (0x20, 0, 0xFFFFFFFF)
    )
)  # fmt: skip
"""user::rw- user:1234:r-- group::r-- mask::r-- other::---"""
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
"""cap_net_bind_service=ep"""


def build_nasty(root: Path, *, overlay: bool = True) -> None:
    """Every kind of entry, every odd name, every attribute."""
    top = os.fsencode(root)

    def at(name: bytes) -> bytes:
        return os.path.join(top, name)

    def write(name: bytes, content: bytes = b"x", mode: int = 0o644) -> None:
        with open(at(name), "wb") as file:
            file.write(content)
        os.chmod(at(name), mode)

    for name in (
        b"plain",
        b"new\nline",
        b"\xff\xfe not utf-8",
        b"n" * 255,
        b"-rf",
        b" ",
        b"'\"$(x)`",
        b"...",
        b"~",
        b"\x01",
    ):
        write(name, name * 3)
    write(b"empty", b"")
    write(b"setuid", b"s", 0o4755)
    write(b"setgid", b"s", 0o2755)
    write(b"unreadable", b"u", 0o000)
    write(b"owned", b"o")
    os.chown(at(b"owned"), 12345, 54321)
    os.utime(at(b"owned"), ns=(1, 1_234_567_890_123_456_789))
    write(b"before 1970", b"old")
    os.utime(at(b"before 1970"), ns=(0, -123_456_789_987_654_321))
    write(b"large", random.Random(1).randbytes(3 * 2**20 + 17))
    write(b"zeros", bytes(2**20 + 5))
    with open(at(b"sparse"), "wb") as file:
        file.truncate(50 * 2**20)
        file.seek(20 * 2**20)
        file.write(b"island" * 1000)
    os.mkdir(at(b"folder"), 0o1777)
    os.mkdir(at(b"empty folder"), 0o555)
    os.mkdir(at(b"folder/inner"))
    for number in range(150):
        write(b"folder/inner/f%03d" % number, random.Random(number).randbytes(number * 37))
    os.symlink(b"/etc/passwd", at(b"absolute"))
    os.symlink(b"../" * 40 + b"\xffnowhere", at(b"dangling"))
    os.symlink(b"folder", at(b"to folder"))
    os.chown(at(b"dangling"), 777, 778, follow_symlinks=False)
    os.utime(at(b"dangling"), ns=(5, 1_111_111_111_111_111_111), follow_symlinks=False)
    os.link(at(b"plain"), at(b"folder/plain again"))
    os.link(at(b"large"), at(b"a large one"))
    os.link(at(b"absolute"), at(b"folder/absolute again"), follow_symlinks=False)
    os.mkfifo(at(b"fifo"), 0o640)
    os.setxattr(at(b"plain"), b"user.empty", b"")
    os.setxattr(at(b"plain"), b"user.long", bytes(range(256)) * 8)
    os.setxattr(at(b"empty"), b"user.of empty", b"1")
    os.setxattr(at(b"folder"), b"user.of folder", b"1")
    os.setxattr(at(b"owned"), b"system.posix_acl_access", ACL)
    os.setxattr(at(b"folder/inner"), b"system.posix_acl_default", ACL)
    if overlay:
        write(b"capable", b"c", 0o755)
        os.setxattr(at(b"capable"), b"security.capability", CAPABILITY)
        os.mknod(at(b"whiteout"), stat.S_IFCHR, os.makedev(0, 0))
        os.link(at(b"whiteout"), at(b"folder/whiteout too"))
        os.mkdir(at(b"opaque"))
        os.setxattr(at(b"opaque"), b"trusted.overlay.opaque", b"y")
    _build_deep(top)
    for name in (b"folder/inner", b"folder", b"empty folder", b""):
        os.utime(at(name), ns=(9, 1_600_000_000_000_000_000 + len(name)))


def _build_deep(top: bytes) -> None:
    """Deeper than a path may be long."""
    here = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for number in range(60):
        name = b"%02d" % number + b"d" * 118
        os.mkdir(name, dir_fd=here)
        there = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = there
    with open(os.open(b"bottom", os.O_CREAT | os.O_WRONLY, dir_fd=here), "wb") as file:
        file.write(b"far down")
    os.close(here)


def add_what_is_left_out(root: Path) -> None:
    """Sockets, caches, run-time state: nothing of it may come back."""
    bound = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(root)  # a socket's path is at most 107 bytes
    try:
        bound.bind("socket")
    finally:
        os.chdir(here)
        bound.close()
    for path in (
        "tmp/scratch", "run/lock/x", "var/cache/apt/archives/a.deb", "root/.cache/pip/http/x", "var/lib/daemon.pid",
        "home/ana/.local/share/jupyter/runtime/token.json",
    ):  # fmt: skip
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("left out")


def look(root: Path) -> Look:
    """Every fact about a tree that counts."""
    facts: Look = {}
    names: dict[int, bytes] = {}
    _look_into(os.open(root, os.O_RDONLY | os.O_DIRECTORY), b"", facts, names)
    return facts


def _look_into(folder: int, path: bytes, facts: Look, names: dict[int, bytes]) -> None:
    try:
        if not path:
            facts[b"."] = _facts(folder, b".", names, b".")
        for name in sorted(map(os.fsencode, os.listdir(folder))):
            full = path + b"/" + name if path else name
            facts[full] = _facts(folder, name, names, full)
            if facts[full]["kind"] == stat.S_IFDIR:
                inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
                _look_into(inner, full, facts, names)
    finally:
        os.close(folder)


def _facts(folder: int, name: bytes, names: dict[int, bytes], full: bytes) -> dict[str, Any]:
    info = os.stat(name, dir_fd=folder, follow_symlinks=False)
    kind = stat.S_IFMT(info.st_mode)
    below = b"/proc/self/fd/%d/%s" % (folder, name)
    found: dict[str, Any] = {
        "kind": kind,
        "mode": stat.S_IMODE(info.st_mode),
        "owner": (info.st_uid, info.st_gid),
        "mtime_ns": info.st_mtime_ns,
        "device": info.st_rdev,
    }
    if kind == stat.S_IFLNK:
        found["target"] = os.readlink(name, dir_fd=folder)
    else:
        with contextlib.suppress(OSError):
            found["attributes"] = {
                key: os.getxattr(below, key, follow_symlinks=False)
                for key in os.listxattr(below, follow_symlinks=False)
            }
    if kind != stat.S_IFDIR and kind != stat.S_IFCHR:
        found["same file as"] = names.setdefault(info.st_ino, full)
    if kind == stat.S_IFREG:
        found["size"] = info.st_size
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
        with os.fdopen(descriptor, "rb") as file:
            found["content"] = file.read()
        found["mostly hole"] = info.st_blocks * 512 < info.st_size // 2
    return found


def differences(one: Look, other: Look) -> list[str]:
    """In words, empty when the trees are the same."""
    found = [f"only here: {path!r}" for path in sorted(one.keys() - other.keys())]
    found += [f"only there: {path!r}" for path in sorted(other.keys() - one.keys())]
    for path in sorted(one.keys() & other.keys()):
        for fact in sorted(one[path].keys() | other[path].keys()):
            here, there = one[path].get(fact), other[path].get(fact)
            if fact == "mostly hole" and not here:
                continue  # zeros that were written out may come back as a hole
            if here != there:
                found.append(f"{path!r}: {fact}: {str(here)[:60]} here, {str(there)[:60]} there")
    return found


def remove_deep(root: Path) -> None:
    """shutil.rmtree does not go deeper than a path is long; this does."""
    os.system(f"rm -rf --one-file-system {root}")
