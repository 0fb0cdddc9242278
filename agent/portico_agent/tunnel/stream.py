"""One tunnel connection of an agent's, from its upgrade request to the end of its stream."""

import asyncio
from typing import Protocol, cast

from portico_agent.tunnel.spare import Accepted, Claimed, Declined, Fault, SpareReader
from portico_shared.relay import Relay, join
from portico_shared.tunnel import ACCEPT, REFUSE, Claim


class Owner(Protocol):
    """Who is told what happens on a connection (the dialer)."""

    def accepted(self, connection: "TunnelEnd") -> None: ...

    def declined(self, connection: "TunnelEnd", status: int) -> None: ...

    def claimed(self, connection: "TunnelEnd", claim: Claim) -> None: ...

    def closed(self, connection: "TunnelEnd", why: str) -> None: ...


class TunnelEnd(asyncio.Protocol):
    """Listens to the gateway until the claim; after `join_tool` the pipe listens."""

    def __init__(self, owner: Owner, request: bytes, token: str) -> None:
        self.token = token
        self.transport: asyncio.Transport | None = None
        self.settled = asyncio.Event()
        """The gateway has answered the upgrade, or never will."""
        self._owner = owner
        self._request = request
        self._reader = SpareReader()
        self._relay: Relay | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are not its children, only alike
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        try:
            events = self._reader.feed(data)
        except Fault as fault:
            self._end(str(fault))
            return
        for event in events:
            match event:
                case Accepted():
                    self.settled.set()
                    self._owner.accepted(self)
                case Declined(status):
                    self._owner.declined(self, status)
                    self._end(f"declined with {status}")
                case Claimed(claim):
                    self._owner.claimed(self, claim)

    def eof_received(self) -> bool:
        self._end("closed by the gateway")
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.settled.set()
        self._owner.closed(self, f"lost: {error}" if error else "closed by the gateway")

    def _end(self, why: str) -> None:
        assert self.transport is not None
        self.settled.set()
        self.transport.abort()
        self._owner.closed(self, why)

    def join_tool(self, tool: asyncio.Transport) -> None:
        """The port is connected: say so, and pipe the two together."""
        assert self.transport is not None
        self.transport.write(ACCEPT)
        self._relay = join(self.transport, tool, on_close=lambda: self._owner.closed(self, "stream ended"))

    def refuse(self) -> None:
        """Nothing listens: say so, and close."""
        assert self.transport is not None
        self.transport.write(REFUSE)
        self.transport.close()

    def abort(self) -> None:
        """End it at once, stream or spare."""
        if self._relay is not None:
            self._relay.abort()
        elif self.transport is not None:
            self.transport.abort()
