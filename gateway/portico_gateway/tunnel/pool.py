"""The connections of one run and who waits for one. Pure bookkeeping: `assign()` edits and returns the I/O to do."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, Protocol, TypeVar

from portico_shared.tunnel import Claim, Kind


class State(Enum):
    SPARE = "spare"
    CLAIMING = "claiming"
    BUSY = "busy"
    IDLE = "idle"
    CLOSED = "closed"


MOVES: dict[State, frozenset[State]] = {
    State.SPARE: frozenset({State.CLAIMING, State.CLOSED}),
    State.CLAIMING: frozenset({State.BUSY, State.CLOSED}),
    State.BUSY: frozenset({State.IDLE, State.CLOSED}),
    State.IDLE: frozenset({State.BUSY, State.CLOSED}),
    State.CLOSED: frozenset(),
}
"""A claimed connection never becomes spare again: it belongs to one port of one tool for the rest of its life."""

FLOOR = 8
"""Spares a pool wants to have beside those it is giving away: a page opens about six connections at once."""
BURST = 64
"""Most spares asked for at once; with 100-150 requests of one opening tab the second round covers the rest."""
MAX_CONNECTIONS = 512
"""Of one run, in all states: a bound on descriptors one studio can hold here."""
MAX_WAITERS = 128
"""Streams waiting for a connection of one run; beyond it the studio is plainly not keeping up."""
MAX_ATTEMPTS = 3
"""Claims tried for one stream: a connection that died unseen costs one each."""


class Pooled(Protocol):
    """What the pool keeps of a connection. Only the pool's owner moves it, and only along MOVES."""

    state: State
    port: int


C = TypeVar("C", bound=Pooled)
W = TypeVar("W")


@dataclass(slots=True, eq=False)
class Waiter(Generic[W]):
    """One stream that needs a connection; `ticket` is the owner's business."""

    port: int
    kind: Kind
    ticket: W
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Assignment(Generic[C, W]):
    """`connection` goes to `waiter`: send `claim` first and await its byte, or, with None, use it right away."""

    connection: C
    waiter: Waiter[W]
    claim: Claim | None


def move(connection: Pooled, to: State) -> None:
    """The one place where a connection's state changes."""
    if to not in MOVES[connection.state]:
        raise AssertionError(f"a tunnel connection cannot go from {connection.state.value} to {to.value}")
    connection.state = to


@dataclass(slots=True)
class Pool(Generic[C, W]):
    """All connections of one run."""

    run: str
    connections: set[C] = field(default_factory=set)
    spares: list[C] = field(default_factory=list)
    idle: dict[int, list[C]] = field(default_factory=dict)
    waiters: deque[Waiter[W]] = field(default_factory=deque)

    @property
    def is_full(self) -> bool:
        return len(self.connections) >= MAX_CONNECTIONS

    def add_spare(self, connection: C) -> None:
        self.connections.add(connection)
        self.spares.append(connection)

    def take_idle(self, port: int) -> C | None:
        """The idle connection of this port that was used last (the warmest), now busy; None = there is none."""
        idle = self.idle.get(port)
        if not idle:
            return None
        connection = idle.pop()
        move(connection, State.BUSY)
        return connection

    def give_back(self, connection: C) -> None:
        """A busy connection whose exchange ended exactly."""
        move(connection, State.IDLE)
        self.idle.setdefault(connection.port, []).append(connection)

    def remove(self, connection: C) -> None:
        """The connection is closed, or about to be. May be repeated."""
        self.connections.discard(connection)
        if connection.state is State.SPARE:
            self.spares.remove(connection)
        elif connection.state is State.IDLE:
            self.idle[connection.port].remove(connection)
        if connection.state is not State.CLOSED:
            move(connection, State.CLOSED)

    def assign(self) -> list[Assignment[C, W]]:
        """Give connections to waiters, oldest waiter first, for as long as there are both."""
        assignments: list[Assignment[C, W]] = []
        unserved: list[Waiter[W]] = []
        while self.waiters:
            waiter = self.waiters.popleft()
            if (idle := self.take_idle(waiter.port)) is not None:
                assignments.append(Assignment(idle, waiter, None))
            elif self.spares:
                assignments.append(Assignment(self._claim(waiter), waiter, self._words(waiter, len(unserved))))
            else:
                unserved.append(waiter)  # a later one may still find an idle connection of another port
        self.waiters.extend(unserved)
        return assignments

    def _claim(self, waiter: Waiter[W]) -> C:
        connection = self.spares.pop()
        connection.port = waiter.port
        waiter.attempts += 1
        move(connection, State.CLAIMING)
        return connection

    def _words(self, waiter: Waiter[W], unserved: int) -> Claim:
        """The claim, with how many more spares are wanted: one for each who waits, and the floor."""
        short = unserved + len(self.waiters) + FLOOR - len(self.spares)
        room = MAX_CONNECTIONS - len(self.connections)
        return Claim(port=waiter.port, kind=waiter.kind, wanted=max(0, min(short, BURST, room)))

    def all(self, state: State) -> Iterator[C]:
        return (connection for connection in self.connections if connection.state is state)
