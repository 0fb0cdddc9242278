"""The data road's few words: how a spare connection is opened, kept, claimed and accepted.

1. The agent dials the gateway and asks for an upgrade (`upgrade_request`); the gateway checks the run's credential and
   answers `101`. The connection is now a *spare*.
2. While it is spare the gateway sends one LF every 25 s (balancers cut silent ones at 60 s); the agent skips LFs.
3. To use it the gateway sends one line, `CLAIM <port> <kind> <wanted>`; `kind` is `http` or `raw`, `wanted` how many
   more spares it would like right now (a burst says so).
4. The agent answers one byte, `+` when it has connected the tool's port, `-` when nothing listens (then it closes).
   A claim without that byte moves on to another spare. After `+` the connection is a raw byte pipe: no framing.

Grammar of the claim (ASCII, at most 64 bytes with its LF):

    claim = "CLAIM" SP port SP kind SP wanted LF
    port  = 1*5DIGIT ; 1-65535      kind = "http" / "raw"      wanted = 1*3DIGIT ; 0-256
"""

import re
from dataclasses import dataclass
from typing import Literal

from portico_shared.messages import TUNNEL_PATH

Kind = Literal["http", "raw"]
UPGRADE = "portico-tunnel"
VERSION = "1"
KEEPALIVE = b"\n"
KEEPALIVE_INTERVAL = 25.0
ACCEPT = b"+"
REFUSE = b"-"
MAX_CLAIM = 64
_CLAIM = re.compile(rb"CLAIM ([1-9][0-9]{0,4}) (http|raw) ([0-9]{1,3})\n")


@dataclass(frozen=True, slots=True)
class Claim:
    port: int
    kind: Kind
    wanted: int

    def to_bytes(self) -> bytes:
        return f"CLAIM {self.port} {self.kind} {self.wanted}\n".encode()


class BadClaim(ValueError):
    """The gateway (or what pretends to be it) sent something that is no claim."""


def parse_claim(line: bytes) -> Claim:
    """Read one claim line with its LF. Raises BadClaim."""
    match = _CLAIM.fullmatch(line)
    if match is None:
        raise BadClaim(f"not a claim: {line[:MAX_CLAIM]!r}")
    port, wanted = int(match[1]), int(match[3])
    if port > 65535 or wanted > 256:
        raise BadClaim(f"claim out of range: port {port}, wanted {wanted}")
    return Claim(port=port, kind="http" if match[2] == b"http" else "raw", wanted=wanted)


def upgrade_request(host: str, token: str, path: str = TUNNEL_PATH, upgrade: str = UPGRADE) -> bytes:
    """The agent's request for a spare connection (or, with another path and upgrade, for the MQTT road)."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n"
        f"Authorization: Bearer {token}\r\nPortico-Version: {VERSION}\r\n\r\n"
    ).encode()
