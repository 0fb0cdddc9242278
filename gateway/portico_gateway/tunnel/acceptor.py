"""Agents' upgrades: a tunnel connection becomes a spare, an MQTT one a raw pipe to the broker.

The edge has read the request's head and had its bearer checked by control before it comes here.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from pathlib import Path

from portico_gateway.errors import PorticoError
from portico_gateway.tunnel.registry import Registry
from portico_gateway.tunnel.sockets import watch_peer
from portico_shared.relay import Relay, join
from portico_shared.tasks import spawn
from portico_shared.tunnel import UPGRADE

MQTT_UPGRADE = "portico-mqtt"
BROKER_SECONDS = 5.0
MAX_MQTT = 4096
"""MQTT connections through this worker: one for each run, and some that have not noticed their end yet."""

Address = tuple[str, int]
_log = logging.getLogger(__name__)
_REASONS = {400: "Bad Request", 409: "Conflict", 429: "Too Many Requests", 503: "Service Unavailable"}


def broker_address(file: Path) -> Callable[[], Address | None]:
    """Reads `broker.json` anew at each call: the broker's port changes when control restarts. None = not there."""

    def read() -> Address | None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(file.read_text())
            return str(found["host"]), int(found["port"])
        return None

    return read


class Acceptor:
    """`transport` is handed over for good, with everything read beyond the request's head."""

    def __init__(self, registry: Registry, broker: Callable[[], Address | None]) -> None:
        self._registry = registry
        self._broker = broker
        self._relays: set[Relay] = set()
        self._dialling = 0

    def accept_tunnel(self, transport: asyncio.Transport, session_id: str, run: str, leftover: bytes = b"") -> None:
        """Answer 101 and keep the connection as a spare of this run, or refuse it with a status and close it."""
        if leftover:
            _decline(transport, 400, "bytes after the upgrade request, before its answer")
            return
        try:
            self._registry.admit(session_id, run)
        except PorticoError as error:
            _decline(transport, error.status, error.message)
            return
        transport.write(_switching(UPGRADE))
        self._registry.add(transport, session_id, run)

    def accept_mqtt(self, transport: asyncio.Transport, leftover: bytes = b"") -> None:
        """Answer 101 and pipe the connection to the broker, which asks for the run's credential itself."""
        transport.pause_reading()
        transport.set_protocol(asyncio.Protocol())
        if len(self._relays) + self._dialling >= MAX_MQTT:
            _decline(transport, 503, "too many control connections")
            return
        self._dialling += 1
        spawn(self._relay_to_broker(transport, leftover), name="mqtt upgrade")

    async def _relay_to_broker(self, transport: asyncio.Transport, leftover: bytes) -> None:
        try:
            broker = await self._dial_broker()
        finally:
            self._dialling -= 1
        if broker is None:
            _decline(transport, 503, "the broker is away; try again")
            return
        watch_peer(transport)
        transport.write(_switching(MQTT_UPGRADE))
        relay = join(transport, broker, early=leftover, on_close=lambda: self._relays.discard(relay))
        if not transport.is_closing():
            self._relays.add(relay)

    async def _dial_broker(self) -> asyncio.Transport | None:
        address = self._broker()
        if address is None:
            return None
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(BROKER_SECONDS):
                transport, _ = await loop.create_connection(asyncio.Protocol, *address)
        except OSError as error:
            _log.warning("the broker at %s:%d does not answer: %s", *address, error)
            return None
        return transport

    def close(self) -> None:
        """End every MQTT pipe; agents redial."""
        for relay in list(self._relays):
            relay.abort()


def _switching(upgrade: str) -> bytes:
    return f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n".encode()


def _decline(transport: asyncio.Transport, status: int, message: str) -> None:
    body = json.dumps({"message": message}).encode()
    head = f"HTTP/1.1 {status} {_REASONS.get(status, 'Refused')}\r\nContent-Type: application/json\r\n"
    transport.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
    transport.close()
