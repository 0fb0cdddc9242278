"""The promise of an upstream, and the one that leads to control."""

import asyncio
import time
from pathlib import Path
from typing import Protocol, cast

from portico_gateway.errors import Unavailable
from portico_gateway.tunnel.registry import Registry


class UpstreamConnection(Protocol):
    """A byte connection to something that speaks HTTP/1.1, owned by one exchange at a time."""

    transport: asyncio.Transport
    uses: int
    """How many exchanges it has served, this one included; more than one means it may have died while idle."""

    def attach(self, protocol: asyncio.BaseProtocol) -> bytes:
        """`protocol` hears it from now on (`connection_made` is not called). Bytes that came before are returned:
        anything but b"" is a fault."""
        ...


class Upstream(Protocol):
    """Where an exchange gets its connection. Each taken one ends with exactly one `give_back` or `drop`."""

    def take(self) -> UpstreamConnection | None:
        """An idle one, at once; None = `claim`."""
        ...

    async def claim(self) -> UpstreamConnection:
        """A fresh one. Raises PorticoError with the sentence for the client."""
        ...

    def give_back(self, connection: UpstreamConnection) -> None:
        """The exchange ended exactly: nothing owed, nothing surplus."""
        ...

    def drop(self, connection: UpstreamConnection) -> None:
        """The exchange ended otherwise."""
        ...


class StudioUpstream:
    """A port of a studio's tool, through its run's tunnel."""

    def __init__(self, registry: Registry, session_id: str, port: int, *, raw: bool = False) -> None:
        self._registry = registry
        self._session_id = session_id
        self._port = port
        self._raw = raw

    def take(self) -> UpstreamConnection | None:
        return None if self._raw else self._registry.take(self._session_id, self._port)

    async def claim(self) -> UpstreamConnection:
        return await self._registry.claim(self._session_id, self._port, "raw" if self._raw else "http")

    def give_back(self, connection: UpstreamConnection) -> None:
        self._registry.give_back(connection)  # type: ignore[arg-type]  # it came from there

    def drop(self, connection: UpstreamConnection) -> None:
        self._registry.drop(connection)  # type: ignore[arg-type]


IDLE_MOST = 32
IDLE_SECONDS = 15.0
"""Less than the management application's own keep-alive, so that it rarely closes under a request."""
CONNECT_SECONDS = 5.0


class _Connection(asyncio.Protocol):
    """A connection of the Unix-socket upstream while no exchange owns it: any sound from it means it is of no use."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anybody sees it
        self.uses = 1
        self.since = 0.0
        self.spoiled = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop has transports of its own kind
        self.transport = transport

    def attach(self, protocol: asyncio.BaseProtocol) -> bytes:
        self.transport.set_protocol(protocol)
        return b""

    def data_received(self, data: bytes) -> None:
        self.spoiled = True
        self.transport.abort()

    def eof_received(self) -> bool:
        self.spoiled = True
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.spoiled = True


class ControlUpstream:
    """The management application behind its Unix socket: just another upstream."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._idle: list[_Connection] = []

    def take(self) -> UpstreamConnection | None:
        oldest = time.monotonic() - IDLE_SECONDS
        while self._idle:
            connection = self._idle.pop()
            if connection.spoiled or connection.transport.is_closing() or connection.since < oldest:
                connection.transport.abort()
                continue
            connection.uses += 1
            return connection
        return None

    async def claim(self) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await loop.create_unix_connection(_Connection, self._path)
        except OSError as error:  # TimeoutError is one
            raise Unavailable(
                "Portico's control process is restarting. Studios go on; try again in a moment."
            ) from error
        return connection

    def give_back(self, connection: UpstreamConnection) -> None:
        assert isinstance(connection, _Connection)
        if connection.transport.is_closing() or len(self._idle) >= IDLE_MOST:
            connection.transport.close()
            return
        connection.transport.set_protocol(connection)
        if not connection.transport.is_reading():
            connection.transport.resume_reading()
        connection.since = time.monotonic()
        self._idle.append(connection)

    def drop(self, connection: UpstreamConnection) -> None:
        connection.transport.abort()

    def close(self) -> None:
        while self._idle:
            self._idle.pop().transport.abort()
