"""Host -> target, by one exact grammar.

    management host         "portico.localhost"                     UI, API, agents
    studio                  "a" 8HEXDIG "." studio-domain           that studio
    port of a studio        1*5DIGIT "--a" 8HEXDIG "." studio-domain
    literal IP              "127.0.0.1", "[::1]"                    health only

Lower case, one optional ":port", no trailing dot; everything else is unknown and gets no redirect made of it.
"""

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["management", "studio", "literal", "unknown"]
_PORT = re.compile(rb"(.*?)(?::([0-9]{1,5}))?", re.DOTALL)
_LITERAL = re.compile(rb"(?:[0-9]{1,3}\.){3}[0-9]{1,3}|\[[0-9a-f:.]{2,45}\]")
_STUDIO = re.compile(rb"(?:([1-9][0-9]{0,4})--)?a([0-9a-f]{8})")
MAX_HOST = 300


@dataclass(frozen=True, slots=True)
class Target:
    kind: Kind
    session_id: str = ""
    port: int = 0
    """0 = the studio's tool."""


MANAGEMENT, LITERAL, UNKNOWN = Target("management"), Target("literal"), Target("unknown")


class Hosts:
    def __init__(self, management: str, studio_domain: str) -> None:
        self._management = management.encode().lower()
        self._suffix = b"." + studio_domain.encode().lower()

    def find(self, host: bytes) -> Target:
        """What a Host value (lower case) names."""
        match = _PORT.fullmatch(host) if len(host) <= MAX_HOST else None
        if match is None:
            return UNKNOWN
        name = match[1]
        if name == self._management:
            return MANAGEMENT
        if name.endswith(self._suffix):
            studio = _STUDIO.fullmatch(name[: -len(self._suffix)])
            if studio is None or int(studio[1] or 1) > 65535:
                return UNKNOWN
            return Target("studio", studio[2].decode(), int(studio[1] or 0))
        return LITERAL if _LITERAL.fullmatch(name) else UNKNOWN
