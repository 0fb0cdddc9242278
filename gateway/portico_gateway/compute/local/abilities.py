"""What this machine lets us do, found by doing it: each trial runs in a forked child and in namespaces of its own.

`python -I abilities.py` prints the findings as JSON, so that the gateway can ask without forking itself. Nothing is
left behind: a trial's mounts, links and tables end with its namespaces.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

if __name__ == "__main__":  # started by its file name, so that nothing but the standard library is imported
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from portico_gateway.compute.local import network, syscalls
from portico_gateway.compute.local.mask import MaskEntry, write_mask
from portico_gateway.compute.local.syscalls import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_REC, mount

TRIAL_TIMEOUT = 30.0  # seconds for all trials; they take a quarter of one
_ISOLATED = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """'' = it works; else what the machine said."""

    root_namespaces: str
    overlay: str
    user_namespaces: str
    btrfs: str
    veth: str
    pasta: str
    slirp: str
    foreign_firewall: str  # '' = nobody else drops forwarded packets here
    layered: bool = False  # this machine's root is an overlay (a container)
    split_root: str = ""  # program folders that are file systems of their own, which an overlay of / would not show

    @property
    def confines_as_root(self) -> bool:
        return not (self.root_namespaces or self.overlay or self.split_root)

    @property
    def confines_as_user(self) -> bool:
        return not self.user_namespaces


def find_abilities() -> Abilities:
    """Ask a process of its own. Raises OSError when that cannot even be started."""
    done = subprocess.run(
        [sys.executable, "-I", __file__],
        capture_output=True,
        text=True,
        timeout=TRIAL_TIMEOUT,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        raise OSError(f"could not find out what this machine allows: {done.stderr.strip()[-300:]}")
    return Abilities(**json.loads(done.stdout))


def try_everything() -> Abilities:
    mountinfo = Path("/proc/self/mountinfo").read_text()
    return Abilities(
        root_namespaces=_trial(_root_namespaces),
        overlay=_trial(_overlay),
        user_namespaces=_trial(_user_namespaces),
        btrfs=_trial(_btrfs),
        veth=_trial(_veth),
        pasta=_helper("pasta"),
        slirp=_helper("slirp4netns"),
        foreign_firewall=_foreign_firewall(),
        layered=root_is_overlay(mountinfo),
        split_root=", ".join(separate_folders(mountinfo)),
    )


def root_is_overlay(mountinfo: str) -> bool:
    return any(
        line.split()[4] == "/" and line.partition(" - ")[2].split()[0] == "overlay" for line in mountinfo.splitlines()
    )


def separate_folders(mountinfo: str) -> list[str]:
    """Mount points an overlay of `/` would show empty though programs live there."""
    needed = {"/usr", "/etc", "/bin", "/sbin", "/lib", "/lib64", "/usr/bin", "/usr/lib", "/usr/local", "/usr/share"}
    return sorted({line.split()[4] for line in mountinfo.splitlines()} & needed)


def _trial(attempt: Callable[[], None]) -> str:
    """Run it in a child; its last words, '' when it went well."""
    heard, said = os.pipe()
    child = os.fork()
    if child == 0:
        words = ""
        try:
            attempt()
        except (OSError, subprocess.SubprocessError) as error:
            words = str(error) or type(error).__name__
        os.write(said, words.encode()[:1000])
        os._exit(0)
    os.close(said)
    with open(heard, "rb") as file:
        words = file.read().decode(errors="replace")
    os.waitpid(child, 0)
    return words


def _root_namespaces() -> None:
    if os.geteuid() != 0:
        raise PermissionError("not started by root")
    syscalls.unshare(_ISOLATED | syscalls.CLONE_NEWNET)
    _in_first_process(lambda: None)


def _user_namespaces() -> None:
    uid, gid = os.getuid(), os.getgid()
    syscalls.unshare(_ISOLATED | syscalls.CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    _in_first_process(_mount_in_memory)


def _mount_in_memory() -> None:
    mount("", "/", flags=MS_REC | MS_PRIVATE)
    mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV)  # noqa: S108 - a mount point that every machine has
    os.mkdir("/tmp/proc")  # noqa: S108
    mount("proc", "/tmp/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)  # noqa: S108


def _overlay() -> None:
    with _private_mounts() as folder:
        mask, root = os.path.join(folder, "mask"), os.path.join(folder, "root")
        os.mkdir(mask)
        os.mkdir(root)
        write_mask([MaskEntry("root", "empty", 0o700), MaskEntry("boot", "hide")], mask, "/")
        mount("overlay", root, "overlay", syscalls.MS_RDONLY, f"lowerdir={mask}:/")
        if os.path.lexists(os.path.join(root, "boot")) or os.listdir(os.path.join(root, "root")):
            raise OSError("an overlay of this machine's root does not hide what it should")


def _btrfs() -> None:
    if shutil.which("mkfs.btrfs") is None:
        raise FileNotFoundError("the program mkfs.btrfs is missing")
    handle, image = tempfile.mkstemp(prefix="portico-trial-")
    try:
        os.truncate(handle, 128 * 1024**2)
        os.close(handle)
        _run("mkfs.btrfs", "-q", "-f", "-m", "single", "-d", "single", image)
        with _private_mounts() as folder:
            _run("mount", "-t", "btrfs", "-o", "loop", image, folder)
            syscalls.umount(folder)
    finally:
        os.unlink(image)


def _veth() -> None:
    syscalls.unshare(syscalls.CLONE_NEWNET)
    _run("ip", "link", "add", "pvtrial", "type", "veth", "peer", "name", "pvtrial2")
    _run("nft", "-f", "-", stdin=network.table_text("trial", "198.18.0.0/20", only_ours=True, resolver="127.0.0.1"))


def _helper(program: str) -> str:
    if shutil.which(program) is None:
        return f"the program {program} is missing"
    return "" if os.access("/dev/net/tun", os.R_OK | os.W_OK) else "/dev/net/tun is missing or closed to this account"


def _foreign_firewall() -> str:
    """Another table that drops forwarded packets by default (a container engine's, a firewall's) drops ours as well."""
    if os.geteuid() != 0 or shutil.which("nft") is None:
        return ""
    try:
        found = json.loads(_run("nft", "-j", "list", "chains"))
    except (OSError, ValueError):
        return ""
    for chain in (item["chain"] for item in found.get("nftables", []) if "chain" in item):
        drops = chain.get("hook") == "forward" and chain.get("policy") == "drop"
        if drops and chain["family"] in ("ip", "inet") and not chain["table"].startswith("portico_"):
            return f"table '{chain['family']} {chain['table']}' drops forwarded packets"
    return ""


def _in_first_process(attempt: Callable[[], None]) -> None:
    """After unshare the next child is PID 1 of the new namespace."""
    if words := _trial(attempt):
        raise OSError(words)


class _private_mounts:  # noqa: N801 - reads as the function it is used as
    """A folder in memory that nobody else sees, until this process ends."""

    def __enter__(self) -> str:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        mount("", "/", flags=MS_REC | MS_PRIVATE)
        self._folder = tempfile.mkdtemp(prefix="portico-trial-")
        mount("tmpfs", self._folder, "tmpfs", MS_NOSUID)
        return self._folder

    def __exit__(self, *_: object) -> None:
        syscalls.umount(self._folder, syscalls.MNT_DETACH)
        os.rmdir(self._folder)


def _run(*command: str, stdin: str = "") -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=10)
    if done.returncode != 0:
        raise OSError(f"{command[0]}: {done.stderr.strip()[:200]}")
    return done.stdout


if __name__ == "__main__":
    print(json.dumps(asdict(try_everything())))  # noqa: T201 - this is the answer
