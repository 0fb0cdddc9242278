"""Limits of a run: one control group per run and hierarchy, version 2, version 1 or a mixture, where we may write.

Where a machine offers none (containers mostly), studios share the machine's memory and cores as programs do.
"""

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

from portico_gateway.compute.local import device_filter

PIDS = 4096  # processes and threads of one studio: a fork bomb ends there, JupyterLab and its kernels need some hundred
PERIOD = 100_000  # microseconds; the kernel's own default for CPU quotas
_V1 = ("memory", "cpu", "pids", "devices", "freezer")
_DEVICES = tuple(f"c {major}:{'*' if minor is None else minor} rwm" for major, minor in device_filter.DEVICES)

REAP_SECONDS, REAP_TRIES = 1.0, 50


def hierarchies(mountinfo: str) -> dict[str, str]:
    """Where control groups are mounted: controller (version 1) or 'unified' (version 2) -> folder."""
    found: dict[str, str] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if kind[:1] == ["cgroup2"]:
            found["unified"] = fields[4]
        elif kind[:1] == ["cgroup"]:
            for controller in kind[2].split(","):
                if controller in _V1:
                    found[controller] = fields[4]
    return found


def make_groups(name: str, *, memory_mib: int, cpu: int) -> list[str]:
    """Groups called `name` ('portico/<instance>/<run>') with these limits; what cannot be set is left out.

    Returns the folders to join, each by writing to its `cgroup.procs`.
    """
    made: list[str] = []
    for kind, folder in hierarchies(Path("/proc/self/mountinfo").read_text()).items():
        group = Path(folder, name)
        try:
            _descend(Path(folder), name.split("/"), unified=kind == "unified")
            for file, value in _limits(kind, memory_mib, cpu):
                _set(group / file, value)
            if kind == "unified":
                with contextlib.suppress(OSError):  # a kernel without it; version 1 has files for the same
                    device_filter.restrict_devices(str(group))
        except OSError:
            with contextlib.suppress(OSError):
                group.rmdir()
            continue
        made.append(str(group))
    return made


def remove_groups(name: str) -> list[str]:
    """Remove the groups called `name`, which must be empty of processes; returns those that were there."""
    removed = []
    for folder in set(hierarchies(Path("/proc/self/mountinfo").read_text()).values()):
        group = Path(folder, name)
        if not group.is_dir():
            continue
        for inner in sorted(group.rglob("*"), reverse=True):
            if inner.is_dir():
                with contextlib.suppress(OSError):
                    inner.rmdir()
        if _remove_when_empty(group):
            removed.append(str(group))
        for parent in (group.parent, group.parent.parent):
            with contextlib.suppress(OSError):
                parent.rmdir()  # only when it is empty: the last run of this, or any, instance
    return removed


def _remove_when_empty(group: Path) -> bool:
    """A group stays busy for a moment after its last process was killed: until somebody has taken its exit status."""
    for _ in range(REAP_TRIES):
        try:
            group.rmdir()
        except FileNotFoundError:
            return False
        except OSError:
            time.sleep(REAP_SECONDS / REAP_TRIES)
        else:
            return True
    return False


def names_below(name: str) -> set[str]:
    """The groups right below `name` in any hierarchy."""
    found: set[str] = set()
    for folder in set(hierarchies(Path("/proc/self/mountinfo").read_text()).values()):
        with contextlib.suppress(OSError):
            found |= {entry.name for entry in Path(folder, name).iterdir() if entry.is_dir()}
    return found


def join_groups(groups: Iterable[str]) -> list[int]:
    """Put this process into the groups. Those that may restrict devices are only opened, and joined by writing '0' to
    what is returned: the loop device of a volume has to be made before."""
    late = []
    for group in groups:
        descriptor = os.open(os.path.join(group, "cgroup.procs"), os.O_WRONLY)
        if any(os.path.exists(os.path.join(group, name)) for name in ("devices.deny", "cgroup.controllers")):
            late.append(descriptor)
        else:
            os.write(descriptor, b"0")
            os.close(descriptor)
    return late


def _descend(folder: Path, names: list[str], *, unified: bool) -> None:
    for name in names:
        if unified:
            for controller in ("memory", "cpu", "pids"):
                with contextlib.suppress(OSError):
                    (folder / "cgroup.subtree_control").write_text(f"+{controller}")
        folder = folder / name
        folder.mkdir(exist_ok=True)


def _limits(kind: str, memory_mib: int, cpu: int) -> list[tuple[str, str]]:
    memory, quota = str(memory_mib * 1024**2), cpu * PERIOD
    if kind == "unified":
        return [("memory.max", memory), ("cpu.max", f"{quota} {PERIOD}"), ("pids.max", str(PIDS))]
    return {
        "memory": [("memory.limit_in_bytes", memory)],
        "cpu": [("cpu.cfs_period_us", str(PERIOD)), ("cpu.cfs_quota_us", str(quota))],
        "pids": [("pids.max", str(PIDS))],
        "devices": [("devices.deny", "a"), *(("devices.allow", rule) for rule in _DEVICES)],
        "freezer": [],
    }[kind]


def _set(file: Path, value: str) -> None:
    """A limit that this kernel or this hierarchy does not know is no reason not to start."""
    if file.exists():
        with contextlib.suppress(OSError):
            file.write_text(value)
