"""What this machine can and cannot do for studios, and the one command that gets what is missing."""

import os
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from portico_gateway.compute.choice import tools_folder
from portico_gateway.compute.local.abilities import Abilities, find_abilities
from portico_gateway.compute.local.boot_plan import ROOT, USER
from portico_gateway.compute.local.confinement import decide, why_not_root
from portico_gateway.compute.local.planning import DISK_FLOOR
from portico_gateway.compute.local.tool_install import RECIPES, ToolInstaller, importable
from portico_gateway.errors import BadRequest
from portico_gateway.settings import Settings

State = Literal["ok", "warn", "missing"]
RECOMMENDED_SPACE = 20 * 1024**3
RECOMMENDED_MEMORY = 4 * 1024**3
SOCKETS = {
    "Docker": ("/var/run/docker.sock",),
    "Podman": ("/run/podman/podman.sock", f"/run/user/{os.getuid()}/podman/podman.sock"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `remedy` is a command or a sentence; '' when nothing is to be done."""

    name: str
    state: State
    meaning: str
    remedy: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Look at everything; takes half a second and changes nothing."""
    try:
        abilities = find_abilities()
    except OSError as error:
        return [Finding("Trials", "missing", str(error), "run it again as the account that starts Portico")]
    return [
        _python(),
        *_isolation(settings, abilities),
        _overlay(abilities),
        _snapshots(abilities),
        _network(abilities),
        _disk(settings),
        _memory(),
        _port(settings),
        *_tools(settings),
        *_engines(),
    ]


def _apt(*packages: str) -> str:
    """The command of this machine's package manager; Debian's names are close enough to be understood elsewhere."""
    return f"{'' if os.geteuid() == 0 else 'sudo '}apt-get install {' '.join(packages)}"


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if importable("ensurepip"):
        return Finding("Python", "ok", f"{version}, and environments for tools can be made")
    return Finding(
        "Python", "missing", f"{version} cannot make environments: no tool can be installed", _apt("python3-venv")
    )


def _isolation(settings: Settings, abilities: Abilities) -> Iterator[Finding]:
    try:
        found = decide(settings.isolation, abilities)
    except BadRequest as error:
        yield Finding("Isolation", "missing", error.message, "set isolation = 'auto'")
        return
    remedy = ""
    if found.mode != ROOT:
        remedy = "start Portico as root for whole-root studios" if os.geteuid() else why_not_root(abilities)
    if found.mode not in (ROOT, USER):
        remedy = f"allow user namespaces ({abilities.user_namespaces}): sudo sysctl kernel.unprivileged_userns_clone=1"
    yield Finding("Isolation", "ok" if found.mode == ROOT else "warn", found.note, remedy)


def _overlay(abilities: Abilities) -> Finding:
    if abilities.confines_as_root:
        return Finding("Overlay", "ok", "a studio's whole root can be changed and is checkpointed")
    return Finding(
        "Overlay",
        "warn",
        f"only home and /workspace are checkpointed, system packages cannot be installed ({why_not_root(abilities)})",
        "start Portico as root on a machine whose programs lie on one file system",
    )


def _snapshots(abilities: Abilities) -> Finding:
    if not abilities.btrfs:
        return Finding(
            "Snapshots", "ok", "checkpoints are taken from btrfs snapshots of a studio's own image, with a quota"
        )
    meaning = (
        f"no btrfs image can be mounted ({abilities.btrfs}): studios pause for a checkpoint and have no disk quota"
    )
    missing = shutil.which("mkfs.btrfs") is None
    return Finding("Snapshots", "warn", meaning, _apt("btrfs-progs") if missing else "start Portico as root")


def _network(abilities: Abilities) -> Finding:
    if not abilities.veth and not abilities.foreign_firewall:
        return Finding(
            "Network", "ok", "each studio gets a link of its own; this machine and other studios are closed to it"
        )
    helper = "pasta" if not abilities.pasta else "slirp4netns" if not abilities.slirp else ""
    why = abilities.foreign_firewall or abilities.veth
    if helper:
        return Finding(
            "Network", "ok" if os.geteuid() else "warn", f"studios reach the internet through {helper} ({why})"
        )
    meaning = f"studios cannot have a network of their own ({why}; {abilities.pasta})"
    packages = ("nftables", "iproute2") if os.geteuid() == 0 and not abilities.foreign_firewall else ("passt",)
    return Finding("Network", "missing", meaning, _apt(*packages))


def _disk(settings: Settings) -> Finding:
    folder = settings.data
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    words = f"{free / 1024**3:.0f} GiB free for {settings.data}"
    if free < DISK_FLOOR:
        return Finding(
            "Disk", "missing", f"{words}: no studio is started below 1 GiB", "make room there, or choose --data"
        )
    if free < RECOMMENDED_SPACE:
        quota = settings.studio_quota / 1024**3
        return Finding(
            "Disk", "warn", f"{words}; each studio may take {quota:.0f} GiB", "make room there, or choose --data"
        )
    return Finding("Disk", "ok", words)


def _memory() -> Finding:
    total = psutil.virtual_memory().total
    words = f"{total / 1024**3:.0f} GiB memory, {os.cpu_count()} cores"
    if total < RECOMMENDED_MEMORY:
        return Finding(
            "Memory", "warn", f"{words}: room for one small studio", "give studios less memory when adding them"
        )
    return Finding("Memory", "ok", words)


def _port(settings: Settings) -> Finding:
    name = f"Port {settings.listen}"
    family = socket.AF_INET6 if ":" in settings.listen_host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.listen_host, settings.listen_port))
        except OSError as error:
            meaning = f"cannot be listened on: {error.strerror} (is Portico running already?)"
            return Finding(name, "warn", meaning, "choose another: portico up --listen 127.0.0.1:8001")
    return Finding(name, "ok", "is free")


def _tools(settings: Settings) -> Iterator[Finding]:
    installer = ToolInstaller(tools_folder(settings))
    for tool, recipe in RECIPES.items():
        if installer.installed(tool):
            yield Finding(f"Tool {recipe.folder}", "ok", f"installed in {installer.tools_dir(tool)}")
        else:
            yield Finding(
                f"Tool {recipe.folder}", "ok", "is installed when the first studio of its kind starts (250 MB)"
            )


def _engines() -> Iterator[Finding]:
    """Not needed: local compute has no daemon. Said because people ask."""
    for name, places in SOCKETS.items():
        found = next((place for place in places if Path(place).is_socket()), "")
        yield Finding(
            name, "ok", f"found at {found}" if found else "not found, and not needed for studios on this machine"
        )
