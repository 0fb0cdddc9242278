"""What a studio sees of this machine's root: an allowlist, laid over `/` as the upper of two read-only overlay layers.

The mask is a small tree of three things: *whiteouts* (character device 0/0: the name is gone), *opaque folders* (the
folder is there, empty) and *clean files* in place of the machine's own (shadow, hosts, machine-id …). It must lie on
another filesystem than the root below it: overlayfs refuses layers that it takes for overlapping.

What stays visible are programs and package databases: /bin /sbin /lib* /usr /etc /opt and the package manager's part of
/var. In /etc, /opt and /usr/local everything is cut that an ordinary account of this machine could not read either; a
studio's user is root in there and would read it all.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

KEPT_AT_TOP = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "opt", "var")
SCANNED = ("etc", "opt", "usr/local")
SCAN_LIMIT = 100_000
"""Entries looked at below each child of a scanned folder; a child with more is hidden whole. 0.3 s at worst."""
EMPTY_FOLDERS: Mapping[str, int] = {
    "root": 0o700,
    "home": 0o755,
    "srv": 0o755,
    "mnt": 0o755,
    "media": 0o755,
    "boot": 0o755,
    "proc": 0o555,
    "sys": 0o555,
    "dev": 0o755,
    "run": 0o755,
    "tmp": 0o1777,
    "workspace": 0o755,
    "portico": 0o755,
    "portico/volume": 0o755,
    "opt/portico": 0o755,
    "opt/portico/python": 0o755,
    "opt/portico/agent": 0o755,
    "opt/portico/tools": 0o755,
    "var/backups": 0o755,
    "var/local": 0o755,
    "var/log": 0o755,
    "var/mail": 0o755,
    "var/opt": 0o755,
    "var/spool": 0o755,
    "var/tmp": 0o1777,
    "var/cache": 0o755,
    "var/cache/apt": 0o755,
    "var/cache/apt/archives": 0o755,
    "var/cache/apt/archives/partial": 0o700,
}
KEPT_IN_VAR = ("lib", "run", "lock")
KEPT_IN_VAR_LIB = (
    *("apt", "dpkg", "dnf", "pacman", "rpm"),  # package managers
    *(
        "ca-certificates-java",
        "dictionaries-common",
        "emacsen-common",
        "ghostscript",
        "misc",
        "pam",
        "python",
        "sgml-base",
    ),
    *("shells.state", "texmf", "ucf", "vim", "xml-core"),  # what maintainer scripts of packages look up
)
HIDDEN_IN_ETC = (
    *("docker", "containerd", "crio", "cni", "kubernetes", "rancher", "podman"),
    *("letsencrypt", "ssl/private", "pki/tls/private", "pki/private", "krb5.keytab", "ipsec.d", "ipsec.secrets"),
    *("wireguard", "openvpn", "NetworkManager", "netplan", "ppp", "wpa_supplicant", "iscsi", "nvme", "systemd/network"),
    *("sudoers", "sudoers.d", "crypttab", "cron.d", "crontab", "apt/auth.conf", "apt/auth.conf.d", "netrc", "portico"),
    *("shadow-", "gshadow-", "passwd-", "group-", "subuid", "subuid-", "subgid", "subgid-"),
)


@dataclass(frozen=True, slots=True)
class MaskEntry:
    """One change to what lies below, at `path` relative to the root."""

    path: str
    kind: Literal["hide", "empty", "file"]
    mode: int = 0
    content: str = ""


def plan_mask(root: str, *, hidden: Iterable[str], files: Mapping[str, str]) -> Iterator[MaskEntry]:
    """The mask for `root`. `hidden` are absolute real paths; `files` are clean files by path relative to the root."""
    files = {**_accounts(root), **files}
    empty = set(EMPTY_FOLDERS)
    for name in _names(root, ""):
        if name not in KEPT_AT_TOP and name not in empty:
            yield MaskEntry(name, "hide")
    for path, mode in EMPTY_FOLDERS.items():
        yield MaskEntry(path, "empty", mode)
    for path in hidden:
        yield MaskEntry(os.path.relpath(path, "/"), "hide")
    for folder, kept in (("var", KEPT_IN_VAR), ("var/lib", KEPT_IN_VAR_LIB)):
        for name in _names(root, folder):
            if name not in kept and f"{folder}/{name}" not in empty:
                yield MaskEntry(f"{folder}/{name}", "hide")
    yield from (MaskEntry(path, "hide") for path in secrets_of(root) if path not in files)
    for path, content in files.items():
        yield MaskEntry(path, "file", 0o640 if path.endswith("shadow") else 0o644, content)


def secrets_of(root: str) -> Iterator[str]:
    """Paths relative to `root` that are cut out of folders shown otherwise."""
    for path in (f"etc/{name}" for name in HIDDEN_IN_ETC):
        if os.path.lexists(os.path.join(root, path)):
            yield path
    for folder in SCANNED:
        for name in _names(root, folder):
            if (path := f"{folder}/{name}") not in EMPTY_FOLDERS:
                yield from _private(root, path)


def write_mask(entries: Iterable[MaskEntry], mask: str, root: str) -> None:
    """Make the tree in the empty folder `mask`. Folders on the way look like the root's own. Raises OSError."""
    gone: set[str] = set()
    for entry in entries:
        target = os.path.join(mask, entry.path)
        if _below(entry.path, gone):
            continue
        _ensure_parents(mask, root, entry.path)
        if entry.kind == "hide":
            _hide(target)
            gone.add(entry.path)
        elif entry.kind == "empty":
            os.makedirs(target, exist_ok=True)
            os.chmod(target, entry.mode)
            os.setxattr(target, "trusted.overlay.opaque", b"y")
        else:
            with open(target, "w") as file:
                file.write(entry.content)
            os.chmod(target, entry.mode)


def _below(path: str, gone: set[str]) -> bool:
    parts = path.split("/")
    return any("/".join(parts[:end]) in gone for end in range(1, len(parts) + 1))


def _hide(target: str) -> None:
    """Below an opaque folder of the mask nothing shows through, so nothing needs hiding there."""
    if _is_opaque(os.path.dirname(target)) or os.path.lexists(target):
        return
    os.mknod(target, stat.S_IFCHR, os.makedev(0, 0))


def _is_opaque(folder: str) -> bool:
    try:
        return os.getxattr(folder, "trusted.overlay.opaque") == b"y"
    except OSError:
        return False


def _ensure_parents(mask: str, root: str, path: str) -> None:
    done = ""
    for name in path.split("/")[:-1]:
        done = f"{done}/{name}" if done else name
        target = os.path.join(mask, done)
        if os.path.isdir(target):
            continue
        os.mkdir(target)
        try:
            found = os.lstat(os.path.join(root, done))
        except FileNotFoundError:
            continue
        if stat.S_ISDIR(found.st_mode):
            os.chown(target, found.st_uid, found.st_gid)
            os.chmod(target, stat.S_IMODE(found.st_mode))


def _private(root: str, path: str) -> list[str]:
    """Everything at or below `path` that other accounts may not read, and what is neither file, folder nor link."""
    found: list[str] = []
    queue, seen = [path], 0
    try:
        device = os.lstat(os.path.join(root, path)).st_dev
    except OSError:
        return [path]
    while queue:
        here = queue.pop()
        seen += 1
        if seen > SCAN_LIMIT:
            return [path]
        entry = os.lstat(os.path.join(root, here))
        mode = entry.st_mode
        if stat.S_ISLNK(mode) or entry.st_dev != device:
            continue
        if stat.S_ISDIR(mode):
            if mode & 0o005 != 0o005:
                found.append(here)
                continue
            queue += [f"{here}/{name}" for name in _names(root, here)]
        elif not stat.S_ISREG(mode) or not mode & 0o004:
            found.append(here)
    return found


def _names(root: str, folder: str) -> list[str]:
    try:
        return sorted(os.listdir(os.path.join(root, folder)))
    except OSError:
        return []


def _accounts(root: str) -> dict[str, str]:
    """Password files with the machine's accounts and no password that fits."""
    users = [line.split(":", 1)[0] for line in _lines(os.path.join(root, "etc/passwd"))]
    groups = [line.split(":", 1)[0] for line in _lines(os.path.join(root, "etc/group"))]
    return {
        "etc/shadow": "".join(f"{name}:*:19000:0:99999:7:::\n" for name in users),
        "etc/gshadow": "".join(f"{name}:*::\n" for name in groups),
        "etc/machine-id": "",
        "etc/fstab": "",
    }


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return [line for line in file if ":" in line]
    except OSError:
        return []
