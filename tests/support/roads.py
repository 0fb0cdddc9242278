"""Both ends of the data road without an edge: a gatehouse that takes agents' upgrades, and an agent's dialer."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from portico_agent.errors import GatewayAway
from portico_agent.tunnel.dialer import Dialer
from portico_gateway.link.messages import Route, Tunnels
from portico_gateway.tunnel.acceptor import Acceptor
from portico_gateway.tunnel.registry import Registry
from portico_shared.backoff import Backoff

STUDIO, RUN, TOKEN = "00000001", "r" + "1" * 16, "short-token-1"


class Gatehouse:
    """Reads an upgrade's head as the edge does, looks the bearer up, hands over to the acceptor."""

    def __init__(self, broker: Callable[[], tuple[str, int] | None] = lambda: None) -> None:
        self.told: list[Tunnels] = []
        self.registry = Registry(self.told.append)
        self.acceptor = Acceptor(self.registry, broker)
        self.tokens = {TOKEN: (STUDIO, RUN)}
        self.requests = 0
        self.server: asyncio.Server | None = None
        self.address = ""
        self._transports: set[asyncio.Transport] = set()

    async def listen(self, unix: Path | None = None, port: int = 0) -> None:
        loop = asyncio.get_running_loop()
        if unix is not None:
            self.server = await loop.create_unix_server(lambda: _Head(self), str(unix))
            self.address = f"unix:{unix}"
        else:
            self.server = await loop.create_server(lambda: _Head(self), "127.0.0.1", port)
            self.address = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def die(self) -> None:
        """As by kill -9: every socket is closed at once."""
        assert self.server is not None
        self.server.close()
        for transport in list(self._transports):
            transport.abort()
        self._transports.clear()
        await self.server.wait_closed()


class _Head(asyncio.Protocol):
    def __init__(self, house: Gatehouse) -> None:
        self.house = house
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are not its children, only alike
        self.house._transports.add(self.transport)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, end, leftover = self.buffer.partition(b"\r\n\r\n")
        if not end:
            return
        self.house.requests += 1
        lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        known = self.house.tokens.get(headers["authorization"].removeprefix("bearer "))
        if known is None:
            self.transport.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
            self.transport.close()
        elif headers["upgrade"] == "portico-mqtt":
            self.house.acceptor.accept_mqtt(self.transport, leftover)
        else:
            self.house.acceptor.accept_tunnel(self.transport, *known, leftover)


@dataclass
class GatewayStub:
    """What the agent's roads need of its gateway client, with a token that never changes."""

    address: str
    host: str = "portico.test"
    run: str = RUN
    current: str = TOKEN
    forgotten: list[str] = field(default_factory=list)
    away: bool = False

    async def token(self) -> str:
        if self.away:
            raise GatewayAway("the gateway does not answer")
        return self.current

    def forget_token(self, token: str) -> None:
        self.forgotten.append(token)


@dataclass
class Roads:
    house: Gatehouse
    dialer: Dialer
    gateway: GatewayStub

    @property
    def registry(self) -> Registry:
        return self.house.registry


@asynccontextmanager
async def gatehouse(unix: Path | None = None) -> AsyncIterator[Gatehouse]:
    house = Gatehouse()
    house.registry.apply(Route(session_id=STUDIO, state="running", run=RUN, port=1))
    await house.listen(unix)
    try:
        yield house
    finally:
        await house.die()


@asynccontextmanager
async def roads(unix: Path | None = None, allowed: Callable[[int], bool] = lambda port: True) -> AsyncIterator[Roads]:
    """A gatehouse and a dialer that has reached it."""
    async with gatehouse(unix) as house, asyncio.TaskGroup() as group:
        gateway = GatewayStub(house.address)
        dialer = Dialer(gateway, allowed, backoff=Backoff(base=0.01, cap=0.05))
        task = group.create_task(dialer.run())
        sweep = group.create_task(house.registry.run())
        await dialer.connected.wait()
        yield Roads(house, dialer, gateway)
        task.cancel()
        sweep.cancel()


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Let the loop turn until something outside our reach has happened; TimeoutError says it did not."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what we wait for is in a kernel or a library
            await asyncio.sleep(0.001)
