"""What the launcher is told, as JSON on its standard input. Standard library only, so that it starts in no time."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

ROOT, USER, NONE = "root", "user", "none"
"""How a run is confined: by real root, in a namespace of a plain user, or not at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPlan:
    """How a run reaches the internet."""

    kind: str  # 'veth', 'pasta', 'slirp', 'loopback', 'host'
    instance: str = ""  # names our interfaces and table
    subnet: str = ""  # IPv4 range that links are cut from
    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    resolver: str = ""  # an address of this machine that answers for names, reached by redirect; '' = none


@dataclass(frozen=True, slots=True, kw_only=True)
class BootPlan:
    """Everything about one boot. Paths are this machine's."""

    mode: str
    run_id: str
    session_id: str
    run_dir: str
    state_dir: str  # of the instance: lock, what to give back
    hostname: str
    volume: str  # image file (root mode with btrfs) or folder
    volume_bytes: int = 0  # size of the image; 0 = the volume is a plain folder
    gateway_dir: str = ""  # folder with the edge's socket
    python_prefix: str = ""
    python_binary: str = ""  # interpreter that finds its own library anywhere; '' = the prefix's own will do
    agent_files: dict[str, str] = field(default_factory=dict)  # name below /opt/portico/agent -> source
    tools: dict[str, str] = field(default_factory=dict)  # name below /opt/portico/tools -> source
    hidden: tuple[str, ...] = ()  # paths never to be seen: data folder, source tree
    layered: bool = False  # this machine's root is an overlay itself: hand the layers on instead of stacking once more
    network: NetworkPlan = NetworkPlan(kind="host")
    cgroups: tuple[str, ...] = ()  # made, limited and writable; joined before anything is isolated
    command: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    nice: int = 0

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "BootPlan":
        found: dict[str, Any] = json.loads(text)
        network = found.pop("network")
        for name in ("nameservers", "search"):
            network[name] = tuple(network[name])
        for name in ("hidden", "cgroups", "command"):
            found[name] = tuple(found[name])
        return cls(**found, network=NetworkPlan(**network))
