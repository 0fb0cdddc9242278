"""Where the gateway is: 'unix:/path/of/socket', 'http://host:port' or 'https://host:port'."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

CONNECT_SECONDS = 10.0
DEAD_AFTER = 15
"""Seconds until a gateway that vanished without a word is noticed."""
P = TypeVar("P", bound=asyncio.BaseProtocol)


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """Parsed once; `connect` may be called as often as one likes."""

    unix: str = ""
    host: str = ""
    port: int = 0
    tls: bool = False

    async def connect(self, protocol: Callable[[], P]) -> tuple[asyncio.Transport, P]:
        """One connection. Raises OSError (TimeoutError and TLS failures are OSErrors too)."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_SECONDS):
            if self.unix:
                return await loop.create_unix_connection(protocol, self.unix)
            context = ssl.create_default_context() if self.tls else None
            transport, made = await loop.create_connection(protocol, self.host, self.port, ssl=context)
        _watch_peer(transport)
        return transport, made


def parse_address(text: str) -> GatewayAddress:
    """Raises ValueError with a sentence.

    >>> parse_address("https://portico.example.org")
    GatewayAddress(unix='', host='portico.example.org', port=443, tls=True)
    """
    if text.startswith("unix:/"):
        return GatewayAddress(unix=text.removeprefix("unix:"))
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError(f"'{text[:100]}' is no gateway: give 'unix:/path' or 'http(s)://host:port'")
    tls = parts.scheme == "https"
    return GatewayAddress(host=parts.hostname, port=parts.port or (443 if tls else 80), tls=tls)


def _watch_peer(transport: asyncio.BaseTransport) -> None:
    sock = transport.get_extra_info("socket")
    if sock is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_AFTER * 1000)
