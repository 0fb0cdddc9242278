"""What a session is made of besides itself: promises that the real parts keep, and those of tests; its few values."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from portico_agent.board import Road
from portico_agent.desk import Engine
from portico_agent.overlay.volume import Volume
from portico_shared.messages import Plan, RestorePoint, Status

if TYPE_CHECKING:
    from portico_agent.session import Session


class CheckpointEngine(Engine, Protocol):
    """What a session needs of the checkpoint engine (`portico_agent.checkpoint`)."""

    label: str
    """How the root is kept, for people: 'overlay+btrfs', 'overlay+freezer', 'folders'."""

    async def restore(self, point: RestorePoint, progress: Callable[[int, int], None]) -> str:
        """Make the volume's `current` what the checkpoint holds, verified; told to `progress` in bytes (done, total).
        Returns words about what people should know ('' when there is nothing). Raises CheckpointError."""
        ...


class Control(Road, Protocol):
    """What a session needs of the control road. It hands commands to `Session.on_command` and says the answers."""

    async def run(self) -> None:
        """Until `leave` or cancelled, whatever becomes of the broker."""
        ...

    async def leave(self, status: Status, *, timeout: float = 5.0) -> bool:
        """Say this last status and all that is still to be said; `run` ends then. False = not all was said in time."""
        ...


class Dialing(Protocol):
    async def run(self) -> None:
        """Keep connections for people open until cancelled."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """How a session's roads and engine are made: the real ones in `__main__`, others in tests."""

    control: Callable[["Session"], Control]
    dialer: Callable[["Session"], Dialing]
    engine: Callable[["Session", Plan, Volume], CheckpointEngine]


@dataclass(frozen=True, slots=True)
class Leaving:
    """Why we leave: told to by the gateway, or by a signal."""

    reason: Literal["stop", "signal"]
    grace: float | None = None
    """Seconds the tool has; None = the plan's."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended: the last checkpoint, or in words why there is none."""

    head: str = ""
    problem: str = ""
