"""Builds the tool's root in a mount namespace of its own. Runs inside a process that portico-init forked for this.

    overlay   lower = the image root, upper = the volume; fresh /proc, /sys read-only, a minimal /dev, /run in memory,
              /tmp from the volume but outside what is checkpointed, then pivot_root (or MS_MOVE and chroot)
    folders   the sandbox's own root; the volume's home and workspace are mounted on HOME and /workspace where those
              exist, else the tool is merely pointed at them
    none      nothing is changed

What is hidden stays hidden because user code gets no CAP_SYS_ADMIN: it can neither unmount nor remount.
"""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from portico_agent.overlay import syscalls
from portico_agent.overlay.places import ensure_file, ensure_folder, is_folder
from portico_agent.overlay.syscalls import (
    MNT_DETACH,
    MS_BIND,
    MS_MOVE,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    mount,
)

Kind = Literal["overlay", "folders", "none"]

HOME = "/root"
WORKSPACE = "/workspace"
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
READ_ONLY_IN_PROC = ("bus", "fs", "irq", "sys", "sysrq-trigger")
"""Files in there ask only for user id 0, not for a capability: core_pattern alone would be a way out."""
HIDDEN_IN_PROC = ("acpi", "kcore", "keys", "latency_stats", "timer_list", "sched_debug", "scsi", "kallsyms")
OVERLAY_OPTIONS = "redirect_dir=off,metacopy=off,index=off"
"""Each of the three would put references between files into the upper that a restored copy cannot honour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """A folder of the sandbox shown, read-only, at the same or another place of the tool's root."""

    source: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RootSpec:
    """What root to build. Paths are those of the sandbox."""

    kind: Kind
    staging: str = ""
    """An empty folder to mount the new root on, outside the volume."""
    lower: tuple[str, ...] = ("/",)
    """Image root first shadowed by what comes before it: overlayfs order, topmost first."""
    upper: str = ""
    work: str = ""
    tmp: str = ""
    home: str = ""
    workspace: str = ""
    binds: tuple[Bind, ...] = ()
    hide: tuple[str, ...] = ()
    files: tuple[Bind, ...] = ()
    """Single files put in place of the root's own: resolv.conf, hosts."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "RootSpec":
        """Raises TypeError or KeyError for what is no root spec."""
        pairs = {name: tuple(Bind(**pair) for pair in found[name]) for name in ("binds", "files")}
        strings = {name: tuple(found[name]) for name in ("lower", "hide")}
        return cls(**{**found, **pairs, **strings})


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """How it went: where HOME and the working folder are for the tool, and what a plain person should know."""

    kind: Kind
    home: str = HOME
    workspace: str = WORKSPACE
    chroot: bool = False
    """pivot_root was refused and the root is a chroot: user code must not keep CAP_SYS_CHROOT."""
    notes: tuple[str, ...] = ()


def build_root(spec: RootSpec) -> Built:
    """Make the root in this process's mount namespace, which must be its own. Raises OSError."""
    if spec.kind == "none":
        return Built(kind="none", home="", workspace="")
    mount("", "/", flags=MS_REC | MS_PRIVATE)
    return _build_overlay(spec) if spec.kind == "overlay" else _build_folders(spec)


# --- overlay --------------------------------------------------------------------------------------------------------


def _build_overlay(spec: RootSpec) -> Built:
    root = Path(spec.staging)
    notes: list[str] = []
    layers = ":".join(_escaped(layer) for layer in spec.lower)
    options = f"lowerdir={layers},upperdir={_escaped(spec.upper)},workdir={_escaped(spec.work)},{OVERLAY_OPTIONS}"
    mount("overlay", spec.staging, "overlay", MS_NODEV, options)
    notes += _mount_proc(ensure_folder(root, "proc", 0o555))
    _mount_sys(ensure_folder(root, "sys", 0o555))
    _mount_dev(ensure_folder(root, "dev"))
    mount("tmpfs", str(ensure_folder(root, "run")), "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=64m")
    ensure_folder(root, "run/lock").chmod(0o1777)
    mount(spec.tmp, str(ensure_folder(root, "tmp")), flags=MS_BIND)
    for bind in spec.binds:
        _bind_read_only(Path(bind.source), ensure_folder(root, bind.target))
    for file in spec.files:
        if Path(file.source).is_file():
            mount(file.source, str(ensure_file(root, file.target)), flags=MS_BIND)
    ensure_folder(root, HOME, 0o700)
    ensure_folder(root, WORKSPACE)
    for path in spec.hide:
        if is_folder(root, path):
            _hide_folder(root / path.lstrip("/"))
    return Built(kind="overlay", chroot=_enter(root), notes=tuple(notes))


def _escaped(path: str) -> str:
    """Overlay's option parser splits at commas and colons."""
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def _enter(root: Path) -> bool:
    """Make `root` this namespace's root. True when only the chroot way was allowed."""
    os.chdir(root)
    try:
        syscalls.pivot_root(".", ".")  # the old root lies on top of the new one now
        syscalls.umount(".", MNT_DETACH)
    except OSError:
        mount(".", "/", flags=MS_MOVE)
        os.chroot(".")
        os.chdir("/")
        return True
    os.chdir("/")
    return False


def _mount_proc(target: Path) -> list[str]:
    notes = []
    try:
        mount("proc", str(target), "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    except PermissionError:  # a container whose own /proc is masked allows no fresh one
        mount("/proc", str(target), flags=MS_BIND | MS_REC)
        notes.append("the machine allows no fresh /proc: the sandbox's own is shown")
    for name in READ_ONLY_IN_PROC:
        if (target / name).exists():
            _bind_read_only(target / name, target / name)
    for name in HIDDEN_IN_PROC:
        if (target / name).is_dir():
            _hide_folder(target / name)
        elif (target / name).exists():
            mount("/dev/null", str(target / name), flags=MS_BIND)
    return notes


def _mount_sys(target: Path) -> None:
    try:
        mount("sysfs", str(target), "sysfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    except PermissionError:
        _bind_read_only(Path("/sys"), target)
    with contextlib.suppress(OSError):
        _hide_folder(target / "firmware")


def _mount_dev(target: Path) -> None:
    mount("tmpfs", str(target), "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755,size=1m")
    for name in DEVICES:
        if Path("/dev", name).exists():
            (target / name).touch()
            mount(f"/dev/{name}", str(target / name), flags=MS_BIND)
    for folder in ("pts", "shm"):
        (target / folder).mkdir()
    pts = str(target / "pts")
    try:
        mount("devpts", pts, "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5")
    except OSError:  # group 5 (tty) has no mapping in a user namespace of one id
        mount("devpts", pts, "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620")
    mount("tmpfs", str(target / "shm"), "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    links = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
    for name, points_to in links.items():
        (target / name).symlink_to(points_to)


# --- folders --------------------------------------------------------------------------------------------------------


def _build_folders(spec: RootSpec) -> Built:
    home, workspace, notes = HOME, WORKSPACE, []
    if not _bound(spec.home, HOME):
        home = spec.home
        notes.append(f"home is at {home}")
    if not _bound(spec.workspace, WORKSPACE):
        workspace = spec.workspace
        notes.append(f"the working folder is at {workspace}")
    for path in spec.hide:
        if Path(path).is_dir():
            _hide_folder(Path(path))
    return Built(kind="folders", home=home, workspace=workspace, notes=tuple(notes))


def _bound(source: str, target: str) -> bool:
    try:
        mount(source, target, flags=MS_BIND)
    except OSError:
        return False
    return True


# --- parts ----------------------------------------------------------------------------------------------------------


def _hide_folder(path: Path) -> None:
    mount("tmpfs", str(path), "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0555,size=4k")


def _bind_read_only(source: Path, target: Path) -> None:
    mount(str(source), str(target), flags=MS_BIND | MS_REC)
    for point in _mounts_at(str(target)):
        mount("", point, flags=MS_REMOUNT | MS_BIND | MS_RDONLY | _locked_flags(point))


def _locked_flags(point: str) -> int:
    """Flags a remount must repeat: a user namespace may not take them off what it inherited."""
    found = os.statvfs(point).f_flag
    return found & (MS_NOSUID | MS_NODEV | MS_NOEXEC)


def _mounts_at(target: str) -> list[str]:
    points = [target]
    with Path("/proc/self/mountinfo").open(encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            point = _unescaped(line.split(" ", 5)[4])
            if point.startswith(target.rstrip("/") + "/"):
                points.append(point)
    return points


def _unescaped(field: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, char)
    return field
