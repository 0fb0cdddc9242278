"""How runs are confined here, decided once from the settings and the machine's abilities, and said in plain words."""

from dataclasses import dataclass

from portico_gateway.compute.local.abilities import Abilities
from portico_gateway.compute.local.boot_plan import NONE, ROOT, USER
from portico_gateway.errors import BadRequest


@dataclass(frozen=True, slots=True)
class Confinement:
    """`mode`: boot_plan.ROOT, USER or NONE; `network`: NetworkPlan.kind; `images`: volumes are btrfs images."""

    mode: str
    network: str
    images: bool
    layered: bool = False

    @property
    def isolation(self) -> str:
        """As API and UI call it."""
        return {ROOT: "full", USER: "user", NONE: "none"}[self.mode]

    @property
    def shared(self) -> bool:
        """Whether anyone but the account that started Portico may open studios: a colleague must gain nothing."""
        return self.mode != NONE and self.network != "host"

    @property
    def note(self) -> str:
        return " ".join((_BY_MODE[self.mode], _BY_NETWORK[self.network], "" if self.shared else _NOT_SHARED)).strip()


_BY_MODE = {
    ROOT: "Studios see this machine's programs and packages read-only, with changes of their own on top; homes, "
    "passwords, keys, Portico's data, other processes and other studios are not visible. They share this machine's "
    "kernel, and a studio's user is root in there with a container's reduced rights.",
    USER: "Studios see this machine's programs read-only and have a home and a /workspace of their own, which "
    "checkpoints carry; your files, Portico's data and other processes are not visible. Packages of the system cannot "
    "be installed, and there is no quota on disk. They share this machine's kernel.",
    NONE: "This machine allows no separation: a studio is an ordinary program of your account and can read and change "
    "whatever you can. Its home and /workspace folder are checkpointed.",
}
_BY_NETWORK = {
    "veth": "Each has a network of its own: the internet and your local network can be reached, this machine's own "
    "addresses and other studios cannot.",
    "pasta": "Each has a network of its own: the internet and your local network can be reached, this machine's "
    "loopback and other studios cannot; services listening on this machine's further addresses can.",
    "slirp": "Each has a network of its own: the internet and your local network can be reached, this machine's "
    "loopback and other studios cannot; services listening on this machine's outside addresses can.",
    "loopback": "They have no network at all: nothing can be downloaded in there.",
    "host": "They share this machine's network: every service on it, and every other studio's tool, can be reached.",
}
_NOT_SHARED = "So only the account that started Portico may open studios."


def decide(isolation: str, abilities: Abilities) -> Confinement:
    """The best that the machine allows, or exactly what `isolation` asks for.
    Raises BadRequest when the machine refuses what was asked for."""
    if isolation == "root" and not abilities.confines_as_root:
        raise BadRequest(f"isolation 'root' is not possible here: {why_not_root(abilities)}")
    if isolation == "user" and not abilities.confines_as_user:
        raise BadRequest(f"isolation 'user' is not possible here: {abilities.user_namespaces}")
    if isolation == "root" or (isolation == "auto" and abilities.confines_as_root):
        return Confinement(ROOT, _network_as_root(abilities), not abilities.btrfs, abilities.layered)
    if isolation == "user" or (isolation == "auto" and abilities.confines_as_user):
        return Confinement(USER, _helper(abilities) or "host", images=False)
    return Confinement(NONE, "host", images=False)


def why_not_root(abilities: Abilities) -> str:
    if abilities.split_root:
        return f"{abilities.split_root} lies on a file system of its own"
    return abilities.root_namespaces or abilities.overlay


def _network_as_root(abilities: Abilities) -> str:
    if not abilities.veth and not abilities.foreign_firewall:
        return "veth"
    return _helper(abilities) or "loopback"


def _helper(abilities: Abilities) -> str:
    if not abilities.pasta:
        return "pasta"
    return "" if abilities.slirp else "slirp"
