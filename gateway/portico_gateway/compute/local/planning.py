"""From a RunSpec to a BootPlan: where things are on this machine, what the run may take, what it is told."""

import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

import psutil

from portico_gateway.compute.environment import RunSpec
from portico_gateway.compute.local import cgroups, network, python_home, resolver, user_network, volume
from portico_gateway.compute.local.boot_plan import NONE, ROOT, BootPlan, NetworkPlan
from portico_gateway.compute.local.confinement import Confinement
from portico_gateway.compute.local.run_folders import RunFolders
from portico_gateway.errors import Unavailable
from portico_gateway.settings import Settings

DISK_FLOOR = 1024**3  # bytes: on a full disk a sparse image loses writes it has acknowledged
NICE = 5  # below gateway and desktop, above batch jobs
VOLUME, STATE, TOOLS, GATEWAY = "/portico/volume", "/run/portico/state", "/opt/portico/tools", "/run/portico/gateway"
AGENT_LAUNCHER = "/opt/portico/agent/launch.py"
INIT_MODULE = "portico_agent.init"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PASSED_ON = (
    *("LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_DEFAULT_TIMEOUT", "NODE_EXTRA_CA_CERTS"),
)
"""Of the gateway's own environment: what reaching the internet from this machine takes. Addresses with a password in
them are left out."""
_FOLDERS_OF_THE_SYSTEM = {"/", *(f"/{name}" for name in ("bin", "sbin", "lib", "lib64", "usr", "etc", "opt", "var"))}


class Planner:
    """Plans for one data folder. `plan` touches the disk; call it in a thread."""

    def __init__(
        self,
        settings: Settings,
        confinement: Confinement,
        folders: RunFolders,
        instance: str,
        command: tuple[str, ...] = (),
    ) -> None:
        self._given_command = command
        self._settings = settings
        self._confinement = confinement
        self._folders = folders
        self._instance = instance

    def plan(self, spec: RunSpec) -> BootPlan:
        """Make the run's folders and control groups, and say how it boots. Raises Unavailable."""
        self._check_disk(spec)
        run, place, size = self._folders.run(spec.run_id), *self._volume(spec)
        run.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folders.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        sockets = self._settings.run_dir / "public"
        sockets.mkdir(parents=True, exist_ok=True)
        mode, binary = self._confinement.mode, python_home.movable_binary(self._folders.state / "python")
        return BootPlan(
            mode=mode,
            run_id=spec.run_id,
            session_id=spec.session_id,
            run_dir=str(run),
            state_dir=str(self._folders.state),
            hostname=f"a{spec.session_id}",
            volume=str(place),
            volume_bytes=size,
            gateway_dir=str(sockets),
            python_prefix=str(python_home.prefix()),
            python_binary=str(binary or ""),
            agent_files=python_home.agent_files(),
            tools={spec.tools_dir.parent.name: str(spec.tools_dir)} if spec.tools_dir else {},
            hidden=self._hidden(),
            layered=self._confinement.layered,
            network=self._network(),
            cgroups=self._groups(spec),
            command=self._command(),
            environment=self._environment(spec, os.environ),
            nice=NICE,
        )

    def _check_disk(self, spec: RunSpec) -> None:
        folder = str(self._folders.data)
        if folder in _FOLDERS_OF_THE_SYSTEM:
            raise Unavailable(f"{folder} cannot be Portico's data folder: choose one of its own with --data")
        free = shutil.disk_usage(folder).free
        if free < DISK_FLOOR:
            raise Unavailable(
                f"{folder} has {free / 1024**3:.1f} GiB left, and studios are started with {DISK_FLOOR / 1024**3:.0f} "
                f"GiB free or more (this one may grow to {spec.quota_bytes / 1024**3:.1f} GiB): make room there"
            )

    def _volume(self, spec: RunSpec) -> tuple[Path, int]:
        """The volume's path and, for an image, its size. What a studio began with it goes on with."""
        image, folder = self._folders.image(spec.session_id), self._folders.folder(spec.session_id)
        place = spec.volume
        if place is None:
            as_image = image.exists() or (self._confinement.images and not folder.exists())
            place = image if as_image else folder
        if place.suffix == ".img":
            if not self._confinement.images:
                raise Unavailable(
                    f"the volume of studio {spec.session_id} is a btrfs image, which cannot be mounted here now: "
                    "'portico doctor' says what is missing"
                )
            return place, volume.image_bytes(spec.quota_bytes)
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        return place, 0

    def _hidden(self) -> tuple[str, ...]:
        ours = [self._folders.data, *python_home.source_folders()]
        return tuple(sorted({str(path.resolve()) for path in ours}))

    def _network(self) -> NetworkPlan:
        kind = self._confinement.network
        if kind in user_network.NAMESERVER:
            found = resolver.find_resolver([])
            return NetworkPlan(kind=kind, nameservers=(user_network.NAMESERVER[kind],), search=found.search)
        if kind != "veth":
            return NetworkPlan(kind=kind)
        found = resolver.find_resolver(_own_addresses())
        subnet = self._subnet()
        return NetworkPlan(
            kind=kind,
            instance=self._instance,
            subnet=subnet,
            nameservers=found.nameservers or ((network.resolver_address(subnet),) if found.redirect else ()),
            search=found.search,
            resolver=found.redirect if not found.nameservers else "",
        )

    def _subnet(self) -> str:
        """Chosen when no run is there, then kept: address translation knows one range."""
        remembered = self._folders.subnet
        if remembered.exists():
            return remembered.read_text().strip()
        subnet = network.choose_subnet(network.routed_networks(self._instance), self._instance)
        remembered.write_text(f"{subnet}\n")
        return subnet

    def _groups(self, spec: RunSpec) -> tuple[str, ...]:
        if os.geteuid() != 0:
            return ()
        name = f"portico/{self._instance}/{spec.run_id}"
        return tuple(cgroups.make_groups(name, memory_mib=spec.memory_mib, cpu=spec.cpu))

    def _command(self) -> tuple[str, ...]:
        if self._given_command:
            return self._given_command
        if self._confinement.mode == NONE:
            return (python_home.own_interpreter(), "-I", python_home.agent_files()["launch.py"], INIT_MODULE)
        return (f"{python_home.INSIDE}/bin/python3", "-I", AGENT_LAUNCHER, INIT_MODULE)

    def _environment(self, spec: RunSpec, machine: Mapping[str, str]) -> dict[str, str]:
        passed = {name: machine[name] for name in PASSED_ON if name in machine and "@" not in machine[name]}
        ours = {
            "PATH": PATH,
            "HOME": "/root",
            "PORTICO_RUN": spec.run_id,
            "PORTICO_RUN_TOKEN": spec.run_token,
            "PORTICO_GATEWAY": spec.gateway,
            "PORTICO_HOST": spec.host_header,
            "PORTICO_VOLUME": VOLUME,
            "PORTICO_ROOT": "overlay" if self._confinement.mode == ROOT else "folders",
            "PORTICO_TOOLS": TOOLS,
            "PORTICO_STATE": STATE,
        }
        if self._confinement.layered:
            ours["PORTICO_LOWER"] = "/run/portico/lower/mask:/run/portico/lower/host"
        if self._confinement.mode == NONE:
            ours |= self._unconfined_places(spec)
        return {**passed, **spec.environment, **ours}

    def _unconfined_places(self, spec: RunSpec) -> dict[str, str]:
        """Without a root of its own, a run finds everything where it lies on this machine."""
        run = self._folders.run(spec.run_id)
        tools = run / "tools"
        if spec.tools_dir is not None:
            tools.mkdir(parents=True, exist_ok=True)
            (tools / spec.tools_dir.parent.name).unlink(missing_ok=True)
            (tools / spec.tools_dir.parent.name).symlink_to(spec.tools_dir)
        gateway = spec.gateway.replace(f"unix:{GATEWAY}", f"unix:{self._settings.run_dir / 'public'}")
        return {
            "HOME": os.environ.get("HOME", "/"),
            "PORTICO_GATEWAY": gateway,
            "PORTICO_VOLUME": str(self._volume(spec)[0]),
            "PORTICO_TOOLS": str(tools),
            "PORTICO_STATE": str(run / "state"),
        }


def _own_addresses() -> list[str]:
    found = psutil.net_if_addrs().values()
    return [address.address for addresses in found for address in addresses if address.family == socket.AF_INET]
