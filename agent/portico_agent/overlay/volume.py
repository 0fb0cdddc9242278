"""The volume: where the studio's own changes lie, made ready before a root is built on it.

current/               a btrfs subvolume where that is possible (snapshots of it are checkpoints' source)
  upper/ work/         overlay: what differs from the image root, and overlayfs's own scratch beside it
  home/ workspace/     folders
network/               this run's resolv.conf and hosts
tmp/                   the studio's /tmp, on disk but in no snapshot; emptied at each start
"""

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

from portico_agent.errors import RootError
from portico_agent.overlay.places import ensure_folder
from portico_agent.overlay.root import Bind, RootSpec
from portico_agent.settings import AgentSettings

_BTRFS_SUBVOL_CREATE = 0x5000940E
_BTRFS_FS_INFO = 0x8400941F
_SUBVOLUME_INODE = 256
_VOLUME_ARGS = "=q4088s"
PYTHON = "/opt/portico/python"
HIDDEN = ("/run/portico",)
NETWORK_FILES = ("/etc/resolv.conf", "/etc/hosts")
"""They belong to where the studio runs, not to the studio: shown over whatever an older run left in the upper."""
_PACKAGE_LISTS = ("/var/lib/dpkg/status", "/lib/apk/db/installed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """The volume of this run, prepared."""

    path: Path
    kind: str

    @property
    def current(self) -> Path:
        return self.path / "current"

    @property
    def upper(self) -> Path:
        return self.current / "upper"

    @property
    def subvolume(self) -> bool:
        """Whether `current` is a btrfs subvolume, so that it can be snapshotted. Every subvolume's root has this inode
        number; elsewhere it is an accident that snapshots would show."""
        return self.current.stat().st_ino == _SUBVOLUME_INODE and _is_btrfs(self.path)


def prepare_volume(settings: AgentSettings, *, keep_tmp: bool = False) -> Volume:
    """Make what is missing; leave what is there. `keep_tmp`: a studio is at work in it. Raises RootError in words."""
    try:
        _make_current(settings.volume)
        names = ("upper", "work") if settings.root == "overlay" else ("home", "workspace")
        for name in names:
            (settings.volume / "current" / name).mkdir(mode=0o700 if name == "home" else 0o755, exist_ok=True)
        if not keep_tmp:
            _empty_tmp(settings.volume)
    except OSError as error:
        raise RootError(f"the studio's volume cannot be used: {error}; is the disk full or read-only?") from error
    return Volume(path=settings.volume, kind=settings.root)


def root_spec(settings: AgentSettings, volume: Volume) -> RootSpec:
    """The root that portico-init is to build on this volume."""
    if settings.root == "none":
        return RootSpec(kind="none")
    if settings.root == "folders":
        return RootSpec(
            kind="folders",
            home=str(volume.current / "home"),
            workspace=str(volume.current / "workspace"),
            hide=HIDDEN,
        )
    staging = settings.state / "root"
    staging.mkdir(exist_ok=True)
    shown = [Bind(source=path, target=path) for path in (PYTHON, str(settings.tools)) if Path(path).is_dir()]
    return RootSpec(
        kind="overlay",
        staging=str(staging),
        lower=settings.lower,
        upper=str(volume.upper),
        work=str(volume.current / "work"),
        tmp=str(volume.path / "tmp"),
        binds=tuple(shown),
        files=_network_files(volume.path),
        hide=HIDDEN,
    )


def personalise(volume: Volume, *, forked: bool) -> None:
    """Give the studio its own machine-id; a fork keeps neither its parent's nor the parent's SSH host keys.

    Works on the upper, so only while no root is mounted on it.
    """
    if volume.kind != "overlay":
        return
    etc = ensure_folder(volume.upper, "etc")
    if forked:
        for key in (etc / "ssh").glob("ssh_host_*") if not (etc / "ssh").is_symlink() else ():
            key.unlink()
    identity = etc / "machine-id"
    if forked or not identity.is_file() or identity.is_symlink():
        unfinished = etc / f".machine-id.{secrets.token_hex(4)}"
        unfinished.write_text(secrets.token_hex(16) + "\n")
        unfinished.chmod(0o444)
        unfinished.replace(identity)


def fingerprint() -> str:
    """What the image root is, in 16 hex digits: its release, its packages, the processor. A checkpoint restored onto
    another one may find libraries changed under it, and says so."""
    digest = hashlib.sha256(os.uname().machine.encode())
    for name in ("/etc/os-release", *_PACKAGE_LISTS):
        with contextlib.suppress(OSError), Path(name).open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:16]


def free_share(volume: Volume) -> float:
    """How much of the volume is free, 0 to 1."""
    found = os.statvfs(volume.path)
    return found.f_bavail / found.f_blocks if found.f_blocks else 1.0


def is_image(volume: Volume) -> bool:
    """Whether the volume is a btrfs of its own, rather than a folder of the machine's disk."""
    return volume.path.stat().st_ino == _SUBVOLUME_INODE and _is_btrfs(volume.path)


def _make_current(path: Path) -> None:
    current = path / "current"
    if not current.exists():
        try:
            _create_subvolume(path, "current")
        except OSError:
            current.mkdir()


def _is_btrfs(path: Path) -> bool:
    """Asks the file system for something only btrfs answers."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(folder, _BTRFS_FS_INFO, bytearray(1024))
    except OSError:
        return False
    finally:
        os.close(folder)
    return True


def _create_subvolume(parent: Path, name: str) -> None:
    folder = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(folder, _BTRFS_SUBVOL_CREATE, bytearray(struct.pack(_VOLUME_ARGS, 0, name.encode())))
    finally:
        os.close(folder)


def _empty_tmp(path: Path) -> None:
    tmp = path / "tmp"
    shutil.rmtree(tmp, ignore_errors=True)  # never follows links
    tmp.mkdir(exist_ok=True)
    tmp.chmod(0o1777)


def _network_files(volume: Path) -> tuple[Bind, ...]:
    """Copies that the studio may edit for the time of this run, on its own disk."""
    folder = volume / "network"
    folder.mkdir(exist_ok=True)
    binds = []
    for name in NETWORK_FILES:
        with contextlib.suppress(OSError):
            copy = folder / Path(name).name
            copy.write_bytes(Path(name).read_bytes())
            copy.chmod(0o644)
            binds.append(Bind(source=str(copy), target=name))
    return tuple(binds)
