"""One socket that a run's agent dialled, while no exchange owns it: spare, claiming, idle."""

import asyncio
from typing import Protocol

from portico_gateway.tunnel.pool import State, Waiter
from portico_shared.tunnel import ACCEPT, REFUSE

MAX_EARLY = 64 * 1024
"""Bytes kept between the agent's accept and `attach`; then reading pauses."""

Ticket = asyncio.Future["TunnelConnection"]


class Owner(Protocol):
    """Who is told what happened on a connection (the registry)."""

    def accepted(self, connection: "TunnelConnection") -> None: ...

    def refused(self, connection: "TunnelConnection") -> None: ...

    def lost(self, connection: "TunnelConnection", why: str) -> None: ...


class TunnelConnection(asyncio.Protocol):
    """Listens until `attach` hands the transport to an exchange's own protocol, so that no code of ours stands
    between the bytes of a busy connection and that exchange.

    The holder of a busy connection must end with exactly one of `Registry.give_back` and `Registry.drop`, also when
    its own protocol saw the connection being lost.
    """

    def __init__(self, owner: Owner, transport: asyncio.Transport, session_id: str, run: str, now: float) -> None:
        self.transport = transport
        self.session_id = session_id
        self.run = run
        self.state = State.SPARE
        self.port = 0
        self.since = now
        """When it came into its present state (monotonic)."""
        self.touched = now
        """When bytes were last sent to it while spare (monotonic)."""
        self.waiter: Waiter[Ticket] | None = None
        self.uses = 0
        self._owner = owner
        self._early = bytearray()

    def __repr__(self) -> str:
        return f"<TunnelConnection {self.run} {self.state.value} port {self.port} uses {self.uses}>"

    def attach(self, protocol: asyncio.BaseProtocol) -> bytes:
        """From now on `protocol` hears this connection. Returns what arrived before: for an HTTP exchange anything
        but b"" is a fault of the tool. `protocol.connection_made` is not called; check `transport.is_closing()`."""
        early, self._early = bytes(self._early), bytearray()
        self.transport.set_protocol(protocol)
        if len(early) >= MAX_EARLY and not self.transport.is_closing():
            self.transport.resume_reading()
        return early

    def detach(self) -> None:
        """Hear it again, with flow control as at the start (an exchange may leave it paused)."""
        self.transport.set_protocol(self)
        if not self.transport.is_closing() and not self.transport.is_reading():
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        match self.state:
            case State.CLAIMING:
                self._answered(data)
            case State.BUSY:
                self._early += data
                if len(self._early) >= MAX_EARLY:
                    self.transport.pause_reading()
            case State.SPARE | State.IDLE:
                self._owner.lost(self, f"unexpected bytes while {self.state.value}")

    def _answered(self, data: bytes) -> None:
        if data[:1] == ACCEPT:
            self._early += data[1:]
            self._owner.accepted(self)
        elif data == REFUSE:
            self._owner.refused(self)
        else:
            self._owner.lost(self, "an answer to a claim that is neither yes nor no")

    def eof_received(self) -> bool:
        self._owner.lost(self, "closed by the agent")
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._owner.lost(self, f"lost: {error}" if error else "closed by the agent")
