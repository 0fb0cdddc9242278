"""Studio -> its run's pool of tunnel connections: the one owner of them all."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from portico_gateway.errors import Conflict, TooMany, Unavailable
from portico_gateway.link.messages import ControlMessage, Revoke, Route, RouteGone, Routes, Tunnels
from portico_gateway.tunnel.connection import Ticket, TunnelConnection
from portico_gateway.tunnel.pool import FLOOR, MAX_ATTEMPTS, MAX_WAITERS, Pool, State, Waiter, move
from portico_gateway.tunnel.sockets import watch_peer
from portico_shared.clock import Clock, SystemClock
from portico_shared.tunnel import KEEPALIVE, KEEPALIVE_INTERVAL, Kind

WAIT_SECONDS = 10.0
"""How long a stream waits for a connection: longer than an agent takes to redial after a restart of this worker."""
ACCEPT_SECONDS = 10.0
"""How long the agent may take to connect the tool's port; it is on the same machine as the tool."""
IDLE_SECONDS = 60.0
EXCESS_SECONDS = 60.0
"""After a burst the spares above the floor are let go when they were not needed for so long."""
SWEEP_SECONDS = 0.5

TunnelPool = Pool[TunnelConnection, Ticket]
_log = logging.getLogger(__name__)


class ToolRefused(Unavailable):
    """The agent is there, but nothing listens on the port inside the studio."""


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    run: str
    spare: int
    claiming: int
    busy: int
    idle: int
    waiting: int


class Registry:
    """Only the run that a studio's route names has a pool; what another run dials is refused, and what it had is
    dropped the moment the route changes: a newer run fences the older one.

    `tell` carries `Tunnels` to control: at once when a run comes into or out of contact, else with the next sweep.
    """

    def __init__(self, tell: Callable[[Tunnels], object], clock: Clock | None = None) -> None:
        self._tell = tell
        self._clock = clock or SystemClock()
        self._pools: dict[str, TunnelPool] = {}
        self._told: dict[str, Tunnels] = {}

    # --- what control says ----------------------------------------------------------------------------------------

    def apply(self, message: ControlMessage) -> None:
        """Follow routes and revocations; other messages are none of the registry's business."""
        match message:
            case Routes():
                named = {route.session_id: route for route in message.routes}
                for session_id in self._pools.keys() - named.keys():
                    self._close_pool(session_id, "its studio is gone")
                for route in message.routes:
                    self._follow(route)
            case Route():
                self._follow(message)
            case RouteGone():
                self._close_pool(message.session_id, "its studio is gone")
            case Revoke() if message.run:
                for session_id, pool in list(self._pools.items()):
                    if pool.run == message.run:
                        self._close_pool(session_id, "its run was revoked")

    def _follow(self, route: Route) -> None:
        pool = self._pools.get(route.session_id)
        if pool is not None and pool.run != route.run:
            self._close_pool(route.session_id, "another run has taken its place")
        if route.run and route.session_id not in self._pools:
            self._pools[route.session_id] = Pool(run=route.run)

    def _close_pool(self, session_id: str, why: str) -> None:
        pool = self._pools.pop(session_id, None)
        if pool is None:
            return
        for waiter in pool.waiters:
            _fail(waiter, Unavailable(f"The studio cannot be reached: {why}."))
        pool.waiters.clear()
        for connection in list(pool.connections):
            _fail(connection.waiter, Unavailable(f"The studio cannot be reached: {why}."))
            connection.waiter = None
            pool.remove(connection)
            connection.transport.abort()
        self._report(session_id, pool)

    # --- what agents do -------------------------------------------------------------------------------------------

    def admit(self, session_id: str, run: str) -> None:
        """Whether a connection of this run would be taken. Raises Conflict (not the studio's run) or TooMany."""
        pool = self._pools.get(session_id)
        if pool is None or pool.run != run:
            raise Conflict("this run is not the one its studio is at now")
        if pool.is_full:
            raise TooMany("this run has as many tunnel connections as it may have")

    def add(self, transport: asyncio.Transport, session_id: str, run: str) -> TunnelConnection:
        """A new spare; from now on it is heard here. Raises as `admit`."""
        self.admit(session_id, run)
        connection = TunnelConnection(self, transport, session_id, run, self._clock.monotonic())
        connection.detach()
        watch_peer(transport)
        pool = self._pools[session_id]
        pool.add_spare(connection)
        if len(pool.connections) == 1:
            self._report(session_id, pool)
        self._assign(pool)
        return connection

    def accepted(self, connection: TunnelConnection) -> None:
        """The agent connected the port: the stream has its connection."""
        pool, waiter = self._pools[connection.session_id], connection.waiter
        assert waiter is not None
        self._move_on(connection)
        move(connection, State.BUSY)
        if not waiter.ticket.done():
            connection.uses += 1
            waiter.ticket.set_result(connection)
        elif waiter.kind == "http":
            self.give_back(connection)  # who asked has left; the next request of this port needs no claim
        else:
            self._discard(connection, pool)

    def refused(self, connection: TunnelConnection) -> None:
        """Nothing listens there, and another spare would say the same."""
        waiter = connection.waiter
        self._move_on(connection)
        self._discard(connection, self._pools.get(connection.session_id))
        _fail(waiter, ToolRefused(f"Nothing listens on port {connection.port} inside the studio (yet)."))

    def lost(self, connection: TunnelConnection, why: str) -> None:
        """The connection is of no use any more; who waited for it gets another. May be repeated."""
        if connection.state is State.CLOSED:
            return
        if why != "closed by the agent":
            _log.info("%r: %s", connection, why)
        pool, waiter = self._pools.get(connection.session_id), connection.waiter
        self._move_on(connection)
        self._discard(connection, pool)
        if waiter is None or waiter.ticket.done():
            return
        if pool is None or waiter.attempts >= MAX_ATTEMPTS:
            _fail(waiter, Unavailable("The studio's agent does not answer; try again in a moment."))
        else:
            pool.waiters.appendleft(waiter)
            self._assign(pool)

    def _move_on(self, connection: TunnelConnection) -> None:
        connection.waiter = None
        connection.since = self._clock.monotonic()

    def _discard(self, connection: TunnelConnection, pool: TunnelPool | None) -> None:
        self._forget(connection, pool)
        connection.transport.abort()

    def _forget(self, connection: TunnelConnection, pool: TunnelPool | None) -> None:
        """Out of the books. A connection whose pool is gone was closed with it."""
        if pool is None or connection not in pool.connections:
            return
        pool.remove(connection)
        if not pool.connections:
            self._report(connection.session_id, pool)

    # --- what streams do ------------------------------------------------------------------------------------------

    def take(self, session_id: str, port: int) -> TunnelConnection | None:
        """An idle connection to this port, at once; None = `claim` one."""
        pool = self._pools.get(session_id)
        connection = pool.take_idle(port) if pool is not None else None
        if connection is not None:
            connection.uses += 1
            connection.since = self._clock.monotonic()
        return connection

    async def claim(self, session_id: str, port: int, kind: Kind = "http") -> TunnelConnection:
        """A connection to a port of a studio's tool, waiting for one if need be.

        Raises ToolRefused when nothing listens there, TooMany when too many wait already, Unavailable when the studio
        has no run, or no connection came within 10 s.
        """
        for _ in range(MAX_ATTEMPTS):
            connection = await self._claim_once(session_id, port, kind)
            if connection.state is State.BUSY:
                return connection  # else it was lost between the agent's accept and now
        raise Unavailable("The studio's tool closes its connections at once; try again in a moment.")

    async def _claim_once(self, session_id: str, port: int, kind: Kind) -> TunnelConnection:
        pool = self._pools.get(session_id)
        if pool is None:
            raise Unavailable("The studio is not running.")
        if len(pool.waiters) >= MAX_WAITERS:
            raise TooMany("Too many requests wait for this studio; try again in a moment.")
        ticket: Ticket = asyncio.get_running_loop().create_future()
        waiter = Waiter(port=port, kind=kind, ticket=ticket)
        pool.waiters.append(waiter)
        self._assign(pool)
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                return await ticket
        except BaseException as error:
            self._left(pool, waiter)
            if isinstance(error, TimeoutError):
                raise Unavailable("The studio has no free connection to the gateway; try again.") from None
            raise

    def _left(self, pool: TunnelPool, waiter: Waiter[Ticket]) -> None:
        """Who waited has left; a connection that had just been given to it goes back."""
        if waiter in pool.waiters:
            pool.waiters.remove(waiter)
        ticket = waiter.ticket
        if ticket.done() and not ticket.cancelled() and ticket.exception() is None:
            self.drop(ticket.result())

    def give_back(self, connection: TunnelConnection) -> None:
        """The exchange ended exactly (nothing owed, nothing surplus): the connection may serve this port again."""
        pool = self._pools.get(connection.session_id)
        if connection.state is not State.BUSY or pool is None or connection not in pool.connections:
            return
        if connection.transport.is_closing():
            self._discard(connection, pool)
            return
        connection.detach()
        connection.since = self._clock.monotonic()
        pool.give_back(connection)
        self._assign(pool)

    def drop(self, connection: TunnelConnection) -> None:
        """The exchange ended otherwise: close it. What was written before is still sent. May be repeated."""
        self._forget(connection, self._pools.get(connection.session_id))
        connection.transport.close()

    def _assign(self, pool: TunnelPool) -> None:
        """Do the I/O that the pool decides."""
        now = self._clock.monotonic()
        for assignment in pool.assign():
            connection, waiter = assignment.connection, assignment.waiter
            connection.since = now
            if assignment.claim is not None:
                connection.waiter = waiter
                connection.transport.write(assignment.claim.to_bytes())
            elif not waiter.ticket.done():
                connection.uses += 1
                waiter.ticket.set_result(connection)
            else:
                pool.give_back(connection)

    # --- time -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """The one timer of all connections; returns only by cancellation."""
        while True:
            await self._clock.sleep(SWEEP_SECONDS)
            self.sweep()

    def sweep(self) -> None:
        """Keep spares alive, end what is overdue, tell control what changed."""
        now = self._clock.monotonic()
        for session_id, pool in list(self._pools.items()):
            self._end_overdue(pool, now)
            self._keep_alive(pool, now)
            self._report(session_id, pool)

    def _end_overdue(self, pool: TunnelPool, now: float) -> None:
        for connection in [c for c in pool.all(State.CLAIMING) if now - c.since > ACCEPT_SECONDS]:
            self.lost(connection, f"no answer to a claim within {ACCEPT_SECONDS:.0f} s")
        for connection in [c for c in pool.all(State.IDLE) if now - c.since > IDLE_SECONDS]:
            self.drop(connection)
        excess = pool.spares[: max(0, len(pool.spares) - FLOOR)]  # the oldest; the newest are used first
        for connection in [c for c in excess if now - c.since > EXCESS_SECONDS]:
            self.drop(connection)

    def _keep_alive(self, pool: TunnelPool, now: float) -> None:
        for connection in pool.spares:
            if now - connection.touched >= KEEPALIVE_INTERVAL:
                connection.touched = now
                connection.transport.write(KEEPALIVE)

    # --- what others may know -------------------------------------------------------------------------------------

    def _report(self, session_id: str, pool: TunnelPool) -> None:
        count = len(pool.connections) if self._pools.get(session_id) is pool else 0
        last = self._told.get(pool.run)
        if (last.connections if last else 0) == count:
            return
        news = Tunnels(run=pool.run, session_id=session_id, connections=count)
        if count:
            self._told[pool.run] = news
        else:
            del self._told[pool.run]
        self._tell(news)

    def contacts(self) -> Iterable[Tunnels]:
        """What control must hear when the link comes back: the runs in contact, as they are now."""
        for session_id, pool in self._pools.items():
            if pool.connections:
                news = Tunnels(run=pool.run, session_id=session_id, connections=len(pool.connections))
                self._told[pool.run] = news
                yield news

    def statistics(self) -> dict[str, PoolStatistics]:
        """Per studio, how many connections are in which state."""
        return {session_id: _count(pool) for session_id, pool in self._pools.items()}


def _count(pool: TunnelPool) -> PoolStatistics:
    states = [connection.state for connection in pool.connections]
    return PoolStatistics(
        run=pool.run,
        spare=states.count(State.SPARE),
        claiming=states.count(State.CLAIMING),
        busy=states.count(State.BUSY),
        idle=states.count(State.IDLE),
        waiting=len(pool.waiters),
    )


def _fail(waiter: Waiter[Ticket] | None, error: Exception) -> None:
    if waiter is not None and not waiter.ticket.done():
        waiter.ticket.set_exception(error)
