"""The root that portico-init starts in, put together inside the run's own mount namespace, then entered.

    root mode   image root = read-only overlay of the mask and this machine's root
    user mode   image root = an empty one in memory with read-only binds of this machine's program folders

Into both: /opt/portico/{python,agent,tools}, /run/portico/{gateway,state}, /portico/volume, /proc, /sys, a minimal
/dev, /tmp. Standard library only: the launcher uses it.
"""

import contextlib
import os
import stat
from collections.abc import Iterator

from portico_gateway.compute.local import resolver, syscalls, volume
from portico_gateway.compute.local.boot_plan import BootPlan
from portico_gateway.compute.local.mask import plan_mask, secrets_of, write_mask
from portico_gateway.compute.local.syscalls import (
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

LOWER = "/run/portico/lower"
"""Where the layers of the image root are handed on, when this machine's own root is an overlay already."""
PROGRAM_FOLDERS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "opt")
PACKAGE_FOLDERS = ("var/lib/dpkg", "var/lib/apt", "var/lib/rpm", "var/lib/pacman")
ROOT_MODE = 0o755
DEVICE_MODE = 0o666
_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_LOCKED_BY_NAMESPACE = MS_NOSUID | MS_NODEV | MS_NOEXEC | syscalls.MS_NOATIME


def build_root_sandbox(plan: BootPlan, base: str) -> str:
    """Mount everything below `base`, an empty folder; returns the new root. Raises OSError."""
    mount("", "/", flags=MS_REC | MS_PRIVATE)
    mount("tmpfs", base, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0700,size=16m")
    mask, root = os.path.join(base, "mask"), os.path.join(base, "root")
    os.mkdir(mask)
    os.chmod(mask, ROOT_MODE)
    os.mkdir(root)
    write_mask(plan_mask("/", hidden=plan.hidden, files=dict(_clean_files(plan))), mask, "/")
    mount("overlay", root, "overlay", MS_RDONLY | MS_NODEV, f"lowerdir={mask}:/")
    _mount_system(root, own_network=plan.network.kind != "host", nodes=True)
    if plan.layered:
        _hand_layers_on(mask, root)
    _mount_ours(plan, root)
    return root


def build_user_sandbox(plan: BootPlan, base: str) -> str:
    """The same for a plain user inside a user namespace. Raises OSError."""
    mount("", "/", flags=MS_REC | MS_PRIVATE)
    mount("tmpfs", base, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=16m")
    root = os.path.join(base, "root")
    os.mkdir(root)
    mount(root, root, flags=MS_BIND)  # only a mount point can become the root
    for name in (*PROGRAM_FOLDERS, *PACKAGE_FOLDERS):
        _show(f"/{name}", os.path.join(root, name))
    for name, mode in (("root", 0o700), ("home", 0o755), ("workspace", 0o755), ("var/tmp", 0o1777), ("run", 0o755)):
        os.makedirs(os.path.join(root, name), exist_ok=True)
        os.chmod(os.path.join(root, name), mode)
    _cover_portico_folder(root)
    for path in (*secrets_of("/"), *(path.lstrip("/") for path in plan.hidden)):
        _cover(os.path.join(root, path))
    os.makedirs(os.path.join(root, "portico/volume"))
    _mount_system(root, own_network=plan.network.kind != "host", nodes=False)
    for path, content in _clean_files(plan):
        with contextlib.suppress(OSError):
            _cover_file(os.path.join(root, path), os.path.join(base, path.replace("/", "-")), content)
    _mount_ours(plan, root)
    return root


def enter(root: str) -> None:
    """Make `root` the root of this namespace and let go of the old one."""
    os.chdir(root)
    try:
        syscalls.pivot_root(".", ".")  # the old root lies on top of the new one now
        syscalls.umount(".", MNT_DETACH)
    except OSError:  # an initramfs as root allows no pivot
        mount(".", "/", flags=MS_MOVE)
        os.chroot(".")
    os.chdir("/")


def _clean_files(plan: BootPlan) -> Iterator[tuple[str, str]]:
    yield "etc/hostname", f"{plan.hostname}\n"
    yield "etc/hosts", f"127.0.0.1 localhost {plan.hostname}\n::1 localhost ip6-localhost ip6-loopback\n"
    if plan.network.kind != "host":
        yield "etc/resolv.conf", resolver.resolv_conf(plan.network.nameservers, plan.network.search)


def _mount_system(root: str, *, own_network: bool, nodes: bool) -> None:
    os.makedirs(os.path.join(root, "proc"), exist_ok=True)
    os.makedirs(os.path.join(root, "sys"), exist_ok=True)
    quiet = MS_NOSUID | MS_NODEV | MS_NOEXEC
    try:
        mount("proc", os.path.join(root, "proc"), "proc", quiet)
    except PermissionError as error:
        raise OSError(
            error.errno, "this machine allows no /proc of its own to a studio (a container that masks its own?)"
        ) from error
    try:
        if not own_network:
            raise PermissionError
        mount("sysfs", os.path.join(root, "sys"), "sysfs", MS_RDONLY | quiet)
    except PermissionError:  # sysfs belongs to whoever owns the network namespace
        _show("/sys", os.path.join(root, "sys"))
    _mount_dev(os.path.join(root, "dev"), nodes=nodes)
    for name, options in (("run", "mode=0755,size=64m"), ("tmp", "mode=1777")):
        os.makedirs(os.path.join(root, name), exist_ok=True)
        mount("tmpfs", os.path.join(root, name), "tmpfs", MS_NOSUID | MS_NODEV, options)
    for name, mode in (("lock", 0o1777), ("portico", 0o755), ("portico/gateway", 0o755), ("portico/state", 0o700)):
        os.mkdir(os.path.join(root, "run", name))
        os.chmod(os.path.join(root, "run", name), mode)


def _mount_dev(dev: str, *, nodes: bool) -> None:
    os.makedirs(dev, exist_ok=True)
    mount("tmpfs", dev, "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755,size=1m")
    for name, (major, minor) in _DEVICES.items():
        path = os.path.join(dev, name)
        if nodes:
            os.mknod(path, stat.S_IFCHR, os.makedev(major, minor))
            os.chmod(path, DEVICE_MODE)
        elif os.path.exists(f"/dev/{name}"):
            with open(path, "w"):
                pass
            mount(f"/dev/{name}", path, flags=MS_BIND)
    for name in ("pts", "shm"):
        os.mkdir(os.path.join(dev, name))
    options = "newinstance,ptmxmode=0666,mode=0620"
    try:
        mount("devpts", os.path.join(dev, "pts"), "devpts", MS_NOSUID | MS_NOEXEC, f"{options},gid=5")
    except OSError:  # group tty has no mapping in a namespace of one id
        mount("devpts", os.path.join(dev, "pts"), "devpts", MS_NOSUID | MS_NOEXEC, options)
    mount("tmpfs", os.path.join(dev, "shm"), "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    links = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
    for name, points_to in links.items():
        os.symlink(points_to, os.path.join(dev, name))


def _hand_layers_on(mask: str, root: str) -> None:
    """Overlays stack two deep at most; with these two folders the tool's root is made beside ours, not on top."""
    for name, source in (("mask", mask), ("host", "/")):
        target = root + f"{LOWER}/{name}"
        os.makedirs(target, mode=0o700)
        mount(source, target, flags=MS_BIND)
        mount("", target, flags=MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    os.chmod(root + LOWER, 0o700)


def _cover_portico_folder(root: str) -> None:
    """In user mode /opt is the machine's own: put a writable folder of ours where our mount points go."""
    target = os.path.join(root, "opt")
    entries = []
    if os.path.isdir("/opt"):
        entries = [name for name in os.listdir("/opt") if name != "portico"]
        syscalls.umount(target, MNT_DETACH)
    os.makedirs(target, exist_ok=True)
    for name in entries:
        _show(f"/opt/{name}", os.path.join(target, name))
    for name in ("python", "agent", "tools"):
        os.makedirs(os.path.join(target, "portico", name))


def _mount_ours(plan: BootPlan, root: str) -> None:
    portico = os.path.join(root, "opt/portico")
    _bind_read_only(plan.python_prefix, os.path.join(portico, "python"))
    if plan.python_binary:
        inside = os.path.relpath(os.path.realpath(os.path.join(plan.python_prefix, "bin/python3")), plan.python_prefix)
        _bind_read_only(plan.python_binary, os.path.join(portico, "python", inside))
    for folder, shown in (("agent", plan.agent_files), ("tools", plan.tools)):
        place = os.path.join(portico, folder)
        mount("tmpfs", place, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=1m")
        for name, source in shown.items():
            target = os.path.join(place, name)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            if os.path.isdir(source):
                os.mkdir(target)
            else:
                with open(target, "w"):
                    pass
            _bind_read_only(source, target)
        mount("", place, flags=MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    _bind_read_only(plan.gateway_dir, os.path.join(root, "run/portico/gateway"))
    mount_volume = volume.mount_image if plan.volume_bytes else volume.mount_folder
    mount_volume(plan.volume, os.path.join(root, "portico/volume"))


def _show(source: str, target: str) -> None:
    """A folder or link of this machine, read-only; what is not there is left out."""
    if os.path.islink(source):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.symlink(os.readlink(source), target)
    elif os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
        _bind_read_only(source, target)
    elif os.path.isfile(source):
        with open(target, "w"):
            pass
        _bind_read_only(source, target)


def _cover(target: str) -> None:
    """An empty folder or file where ours could be read; what this account cannot look at needs no cover."""
    if os.path.islink(target) or not os.access(target, os.R_OK):
        return
    if os.path.isdir(target):
        mount("tmpfs", target, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV, "mode=0555,size=4k")
    else:
        mount("/dev/null", target, flags=MS_BIND)


def _cover_file(target: str, cover: str, content: str) -> None:
    """Show a file of ours over one of the machine's. A link is followed by hand, inside the new root."""
    if not os.path.lexists(target) or os.path.islink(target):
        return
    with open(cover, "w") as file:
        file.write(content)
    mount(cover, target, flags=MS_BIND)


def _bind_read_only(source: str, target: str) -> None:
    mount(source, target, flags=MS_BIND | MS_REC)
    for point in _mounts_at_and_below(target):
        with contextlib.suppress(OSError):  # a mount of the machine's below that has vanished meanwhile
            locked = os.statvfs(point).f_flag & _LOCKED_BY_NAMESPACE
            mount("", point, flags=MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID * (point == target) | locked)


def _mounts_at_and_below(target: str) -> list[str]:
    points = [target]
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            point = line.split(" ", 5)[4].replace("\\040", " ").replace("\\134", "\\")
            if point.startswith(target.rstrip("/") + "/"):
                points.append(point)
    return points
