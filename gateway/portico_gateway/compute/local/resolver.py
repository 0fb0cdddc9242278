"""Names inside a studio: whom to ask, given that the machine's own loopback cannot be reached from there."""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

RESOLV_CONF = Path("/etc/resolv.conf")
SYSTEMD_UPSTREAM = Path("/run/systemd/resolve/resolv.conf")
"""systemd-resolved answers on 127.0.0.53 and writes here whom it asks itself."""


@dataclass(frozen=True, slots=True)
class Resolver:
    """`nameservers` can be asked directly; `redirect` is an address of this machine that answers, '' = none."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    redirect: str = ""


def find_resolver(
    own_addresses: Iterable[str], *, files: tuple[Path, ...] = (RESOLV_CONF, SYSTEMD_UPSTREAM)
) -> Resolver:
    """The first file that names a server elsewhere wins; else the first server on this machine is redirected to."""
    own = set(own_addresses)
    local: list[str] = []
    search: tuple[str, ...] = ()
    for file in files:
        servers, found_search = _parse(file)
        search = search or found_search
        away = tuple(server for server in servers if not _is_here(server, own))
        if away:
            return Resolver(nameservers=away, search=search)
        local += servers
    return Resolver(search=search, redirect=local[0] if local else "")


def resolv_conf(nameservers: Iterable[str], search: Iterable[str]) -> str:
    lines = [f"nameserver {server}" for server in nameservers]
    if domains := " ".join(search):
        lines.append(f"search {domains}")
    return "".join(f"{line}\n" for line in lines)


def _is_here(server: str, own: set[str]) -> bool:
    return server in own or ipaddress.ip_address(server).is_loopback


def _parse(file: Path) -> tuple[list[str], tuple[str, ...]]:
    """IPv4 servers and search domains of a resolv.conf; a studio's link carries IPv4 alone."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return [], ()
    for line in lines:
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                servers += [str(ipaddress.IPv4Address(words[1]))]
            except ValueError:
                continue
        elif words and words[0] in ("search", "domain"):
            search = tuple(words[1:7])
    return servers, search
