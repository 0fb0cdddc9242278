"""Keeps spare connections to the gateway open, for as long as it runs, whatever becomes of the gateway."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

from portico_agent.errors import GatewayError
from portico_agent.tunnel.address import parse_address
from portico_agent.tunnel.stream import TunnelEnd
from portico_shared.backoff import Backoff
from portico_shared.clock import Clock, SystemClock
from portico_shared.tunnel import Claim, upgrade_request

FLOOR = 8
"""Spares kept open: a page opens about six connections at once."""
MAX_DIALLING = 32
"""Connections being opened at once."""
MAX_STREAMS = 480
"""Claimed connections at once; with the spares it stays below what the gateway gives one run (512)."""
TOOL_SECONDS = 5.0
"""To connect a port of the tool on the same machine; the gateway waits 10 s for our byte."""
UPGRADE_SECONDS = 10.0
SHORT_LIFE = 1.0
"""A spare that ends sooner is a failure: whoever accepts and hangs up must not be dialled in a tight circle."""

_log = logging.getLogger(__name__)


class Gateway(Protocol):
    """How to reach the gateway and who we are to it (`GatewayClient` is one)."""

    @property
    def address(self) -> str: ...

    @property
    def host(self) -> str: ...

    async def token(self) -> str:
        """A short token that is good for a while. Raises GatewayError."""
        ...

    def forget_token(self, token: str) -> None:
        """It was refused: another one next time."""
        ...


@dataclass(frozen=True, slots=True)
class DialerStatistics:
    spares: int
    dialling: int
    streams: int
    served: int
    failures: int


class Dialer:
    """`await run()` until cancelled; then every spare and every stream is closed.

    `allowed(port)` says whether a claim may connect that port: the gateway decides who sees what, the agent still
    opens no door the studio did not declare. `connected` is set while at least one spare is there.
    """

    def __init__(
        self,
        gateway: Gateway,
        allowed: Callable[[int], bool],
        *,
        tool_host: str = "127.0.0.1",
        clock: Clock | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.connected = asyncio.Event()
        self._gateway = gateway
        self._address = parse_address(gateway.address)
        self._allowed = allowed
        self._tool_host = tool_host
        self._clock = clock or SystemClock()
        self._backoff = backoff or Backoff()
        self._dialling: set[TunnelEnd] = set()
        self._starting = 0
        self._spares: dict[TunnelEnd, float] = {}  # and since when
        self._streams: set[TunnelEnd] = set()
        self._extra = 0  # spares a burst asked for beyond the floor, not dialled yet
        self._failed = False
        self._served = self._failures = 0
        self._changed = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None

    def statistics(self) -> DialerStatistics:
        return DialerStatistics(
            spares=len(self._spares),
            dialling=self._starting + len(self._dialling),
            streams=len(self._streams),
            served=self._served,
            failures=self._failures,
        )

    async def run(self) -> None:
        """Dial whenever spares are short; after a failure patiently, one at a time, until one succeeds."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                while True:
                    self._changed.clear()
                    if self._failed:
                        await self._clock.sleep(self._backoff.next_delay())
                        self._failed = False
                        self._start_dialling(1)
                    else:
                        self._start_dialling(self._short())
                    await self._changed.wait()
            finally:
                self._group = None
                for connection in [*self._dialling, *self._spares, *self._streams]:
                    connection.abort()

    def _short(self) -> int:
        """How many to dial now. While the gateway does not take us, one at a time is enough to find out."""
        dialling = self._starting + len(self._dialling)
        if self._backoff.failures and dialling:
            return 0
        floor, extra = (1, 0) if self._backoff.failures else (FLOOR, self._extra)
        room = MAX_STREAMS + FLOOR - len(self._streams) - len(self._spares) - dialling
        return max(0, min(max(floor - len(self._spares) - dialling, extra), MAX_DIALLING - dialling, room))

    def _start_dialling(self, count: int) -> None:
        assert self._group is not None
        self._extra = max(0, self._extra - count)
        for _ in range(count):
            self._starting += 1
            self._group.create_task(self._dial_once())

    async def _dial_once(self) -> None:
        """One attempt; its outcome is heard in `accepted`, `declined` or `closed`."""
        connection: TunnelEnd | None = None
        try:
            token = await self._gateway.token()
            connection = TunnelEnd(self, upgrade_request(self._gateway.host, token), token)
            self._dialling.add(connection)
            self._starting -= 1
            end = connection
            await self._address.connect(lambda: end)
            async with asyncio.timeout(UPGRADE_SECONDS):
                await connection.settled.wait()
        except (OSError, GatewayError) as error:
            if connection is None:
                self._starting -= 1
                self._has_failed(str(error) or type(error).__name__)
            else:
                connection.abort()
                self.closed(connection, str(error) or "no answer in time")

    # --- what happens on connections --------------------------------------------------------------------------------

    def accepted(self, connection: TunnelEnd) -> None:
        self._dialling.discard(connection)
        self._spares[connection] = self._clock.monotonic()
        self._backoff.reset()
        self.connected.set()
        self._changed.set()

    def declined(self, connection: TunnelEnd, status: int) -> None:
        if status == 401:
            self._gateway.forget_token(connection.token)

    def claimed(self, connection: TunnelEnd, claim: Claim) -> None:
        self._spares.pop(connection, None)
        self._extra = max(self._extra, claim.wanted - self._starting - len(self._dialling))
        self._changed.set()
        if self._group is None or not self._allowed(claim.port) or len(self._streams) >= MAX_STREAMS:
            connection.refuse()
            return
        self._streams.add(connection)
        self._group.create_task(self._join(connection, claim))

    async def _join(self, connection: TunnelEnd, claim: Claim) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(TOOL_SECONDS):
                tool, _ = await loop.create_connection(_Unheard, self._tool_host, claim.port)
        except OSError as error:
            _log.info("nothing listens on port %d: %s", claim.port, error)
            self._streams.discard(connection)
            connection.refuse()
            return
        if connection not in self._streams:  # the gateway left meanwhile
            tool.abort()
            return
        self._served += 1
        connection.join_tool(tool)

    def closed(self, connection: TunnelEnd, why: str) -> None:
        """May be repeated."""
        if connection in self._dialling:
            self._dialling.discard(connection)
            self._has_failed(why)
        since = self._spares.pop(connection, None)
        if since is not None and self._clock.monotonic() - since < SHORT_LIFE:
            self._has_failed(why)
        self._streams.discard(connection)
        if not self._spares:
            self.connected.clear()
        self._changed.set()

    def _has_failed(self, why: str) -> None:
        if not self._failures or not self._backoff.failures:
            _log.warning("cannot reach the gateway: %s; trying on", why)
        self._failures += 1
        self._failed = True
        self._extra = 0
        self._changed.set()


class _Unheard(asyncio.Protocol):
    """The tool's connection before it is joined: unread, so that a tool that speaks first loses nothing."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).pause_reading()
