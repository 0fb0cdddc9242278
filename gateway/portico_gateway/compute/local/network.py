"""A network of its own for each run: a link to this machine, address translation, and a table that closes the rest.

Each run gets a pair of interfaces, `pv<instance><number>` here and `eth0` inside, and four addresses of the instance's
range. One nft table for all runs of an instance, made of interface-name patterns, so it never changes with a run:

    input      nothing from a studio reaches this machine itself, on any address (the gateway is reached by its socket)
    forward    no studio reaches another, nor 169.254.0.0/16 (cloud metadata); nobody outside dials in
    output     nobody on this machine dials into a studio

Standard library only: the launcher uses it. `ip` and `nft` are the machine's own programs.
"""

import ipaddress
import json
import os
import subprocess
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

from portico_gateway.compute.local.boot_plan import NetworkPlan

RANGES = ("198.18.0.0/15", "100.64.0.0/10", "10.128.0.0/9", "172.16.0.0/12")
"""Looked through in this order: the benchmarking range is hardly ever routed, then carrier-grade NAT, then private."""
SUBNET_PREFIX = 20  # 1,024 runs at once
LINK_PREFIX = 30
IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
WAS_OFF = Path("/run/portico-forwarding-was-off")
"""Left by an instance that ends before another one of this machine: the last one gives forwarding back."""
COMMAND_TIMEOUT = 10.0  # seconds for one `ip` or `nft`; they take milliseconds


class NetworkFault(OSError):
    """A network for the run could not be made; the sentence says what failed."""


def instance_name(data: Path) -> str:
    """Six hex digits that stand for one data folder on this machine."""
    return blake2b(os.fsencode(data), digest_size=3).hexdigest()


def choose_subnet(taken: Iterable[str], seed: str) -> str:
    """A range that overlaps none of `taken` (CIDR texts); the same one for the same seed on the same machine.
    Raises NetworkFault when every range is in use."""
    used = [ipaddress.IPv4Network(text, strict=False) for text in taken]
    for text in RANGES:
        parts = list(ipaddress.IPv4Network(text).subnets(new_prefix=SUBNET_PREFIX))
        first = int(seed, 16) % len(parts)
        for candidate in parts[first:] + parts[:first]:
            if not any(candidate.overlaps(other) for other in used):
                return str(candidate)
    raise NetworkFault("no private IPv4 range is free on this machine for the studios' network")


def routed_networks(instance: str) -> list[str]:
    """What this machine has routes or addresses for, apart from this instance's own links and the default route."""
    routes = json.loads(_run("ip", "-4", "-j", "route", "show", "table", "all") or "[]")
    ours = f"pv{instance}"
    return [r["dst"] for r in routes if r["dst"] != "default" and not str(r.get("dev", "")).startswith(ours)]


def link_addresses(subnet: str, number: int) -> tuple[str, str]:
    """This machine's and the studio's address on link `number`."""
    first = int(ipaddress.ip_network(subnet).network_address) + 4 * number
    return str(ipaddress.ip_address(first + 1)), str(ipaddress.ip_address(first + 2))


def resolver_address(subnet: str) -> str:
    """What studios ask for names when this machine itself answers: in their range, on no interface, redirected."""
    return str(ipaddress.IPv4Network(subnet)[-2])


def outside_mtu(routes: str) -> int:
    """What fits into one packet on the way out, so that studios need not find out by losing some. 1500 when unknown."""
    try:
        return int(Path("/sys/class/net", json.loads(routes)[0]["dev"], "mtu").read_text())
    except (OSError, ValueError, LookupError, TypeError):
        return 1500


def free_number(instance: str, names: Iterable[str]) -> int:
    """The smallest link number that no interface name takes. Raises NetworkFault at the end of the range."""
    prefix = f"pv{instance}"
    taken = {int(name[len(prefix) :], 16) for name in names if name.startswith(prefix)}
    number = next(n for n in range(len(taken) + 1) if n not in taken)
    if number >= 2 ** (LINK_PREFIX - SUBNET_PREFIX) - 1:  # the last four addresses are the resolver's
        raise NetworkFault("this machine runs as many studios as its network range has room for")
    return number


def table_text(instance: str, subnet: str, *, only_ours: bool, resolver: str = "") -> str:
    """The nft table. `only_ours`: forwarding was off before us, so nothing but studios' traffic is let through."""
    ours = f'"pv{instance}*"'
    rest = (
        '    iifname != "pv*" oifname != "pv*" drop\n' if only_ours else ""
    )  # other instances have rules of their own
    redirect = allow = ""
    if resolver:
        allow = f"    iifname {ours} ct status dnat meta l4proto {{ tcp, udp }} th dport 53 accept\n"
        redirect = (
            "  chain prerouting {\n    type nat hook prerouting priority dstnat;\n"
            f"    iifname {ours} ip daddr {resolver_address(subnet)} meta l4proto {{ tcp, udp }} th dport 53"
            f" dnat ip to {resolver}:53\n  }}\n"
        )
    return (
        f"table inet portico_{instance} {{}}\ndelete table inet portico_{instance}\n"
        f"table inet portico_{instance} {{\n"
        "  chain input {\n    type filter hook input priority filter - 10;\n"
        f"{allow}    iifname {ours} drop\n  }}\n"
        "  chain forward {\n    type filter hook forward priority filter - 10;\n"
        f"    iifname {ours} oifname {ours} drop\n"
        f"    iifname {ours} ip daddr {{ 169.254.0.0/16, 127.0.0.0/8 }} drop\n"
        f"    iifname {ours} meta nfproto ipv6 drop\n"
        f"    oifname {ours} ct state established,related accept\n"
        f"    oifname {ours} drop\n{rest}  }}\n"
        "  chain output {\n    type filter hook output priority filter - 10;\n"
        f"    oifname {ours} ct state new drop\n  }}\n"
        f"{redirect}"
        "  chain postrouting {\n    type nat hook postrouting priority srcnat;\n"
        f"    ip saddr {subnet} oifname != {ours} masquerade\n  }}\n"
        "}\n"
    )


def make_link(plan: NetworkPlan, pid: int, state: Path) -> str:
    """Host's half: table, pair of interfaces (the peer goes to process `pid`), addresses. Returns our interface's name.

    The caller holds the instance's lock. `state` is a file that remembers that forwarding was off before us.
    """
    only_ours = _enable_forwarding(state)
    _run("nft", "-f", "-", stdin=table_text(plan.instance, plan.subnet, only_ours=only_ours, resolver=plan.resolver))
    number = free_number(plan.instance, os.listdir("/sys/class/net"))
    name = f"pv{plan.instance}{number:04x}"
    here, _ = link_addresses(plan.subnet, number)
    mtu = str(outside_mtu(_run("ip", "-4", "-j", "route", "show", "default")))
    _run("ip", "link", "add", name, "mtu", mtu, "type", "veth", "peer", "name", "eth0", "mtu", mtu, "netns", str(pid))
    disable_ipv6 = Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
    if disable_ipv6.exists():
        disable_ipv6.write_text("1")
    if plan.resolver:
        Path(f"/proc/sys/net/ipv4/conf/{name}/route_localnet").write_text("1")
    _run("ip", "-batch", "-", stdin=f"addr add {here}/{LINK_PREFIX} dev {name}\nlink set {name} up\n")
    return name


def join_link(plan: NetworkPlan, name: str) -> None:
    """The studio's half, from inside its network namespace."""
    here, inside = link_addresses(plan.subnet, int(name[2 + len(plan.instance) :], 16))
    no_ipv6 = Path("/proc/sys/net/ipv6/conf/eth0/disable_ipv6")
    if no_ipv6.exists():
        no_ipv6.write_text("1")
    steps = ("link set lo up", f"addr add {inside}/{LINK_PREFIX} dev eth0", "link set eth0 up")
    _run("ip", "-batch", "-", stdin="\n".join((*steps, f"route add default via {here}", "")))


def raise_loopback() -> None:
    _run("ip", "link", "set", "lo", "up")


def remove_links(instance: str, names: Iterable[str]) -> list[str]:
    """Delete these interfaces if they are still there; returns those that were."""
    removed = []
    for name in names:
        if name.startswith(f"pv{instance}") and os.path.exists(f"/sys/class/net/{name}"):
            try:
                _run("ip", "link", "delete", name)
            except NetworkFault:
                continue  # it went away with its namespace in between
            removed.append(name)
    return removed


def remove_table(instance: str, state: Path) -> bool:
    """Drop the table and give forwarding back as it was found. False when there was none."""
    try:
        _run("nft", "delete", "table", "inet", f"portico_{instance}")
        found = True
    except (NetworkFault, FileNotFoundError):
        found = False
    if state.exists():
        WAS_OFF.write_text("was off\n")
        state.unlink()
    if WAS_OFF.exists() and not _other_tables():
        IP_FORWARD.write_text("0")
        WAS_OFF.unlink(missing_ok=True)
    return found


def _other_tables() -> bool:
    """Whether another Portico of this machine has studios that need forwarding."""
    try:
        return "table inet portico_" in _run("nft", "list", "tables")
    except (NetworkFault, FileNotFoundError):
        return False


def _enable_forwarding(state: Path) -> bool:
    """Switch forwarding on; True when that was our doing, now or before."""
    if IP_FORWARD.read_text().strip() == "0":
        state.parent.mkdir(parents=True, exist_ok=True)
        state.write_text("was off\n")
        IP_FORWARD.write_text("1")
    return state.exists()


def _run(*command: str, stdin: str = "") -> str:
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=COMMAND_TIMEOUT)
    except FileNotFoundError:
        raise NetworkFault(f"the program '{command[0]}' is missing on this machine") from None
    except subprocess.TimeoutExpired:
        raise NetworkFault(f"'{' '.join(command[:3])}' took longer than {COMMAND_TIMEOUT:.0f} s") from None
    if done.returncode != 0:
        raise NetworkFault(f"'{' '.join(command[:4])}' failed: {done.stderr.strip()[:300]}")
    return done.stdout
