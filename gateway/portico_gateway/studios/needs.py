"""What the life of a studio needs from the other rooms, stated as narrowly as it uses them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from portico_gateway.auth.values import Action, Actor, StudioRights, User
from portico_gateway.link.messages import ProbeReply, Route
from portico_gateway.studios.run_context import RunContext
from portico_gateway.studios.values import CheckpointPage, CheckpointView
from portico_shared.messages import (
    Answer,
    Command,
    CommitCall,
    CommitReply,
    GrantsCall,
    GrantsReply,
    ReadsCall,
    RestorePoint,
)


class Catalogue(Protocol):
    """The checkpoints of all studios: rows in the store, objects behind grants.

    A row is 'pending' until its first durable head, then 'saved', then 'sealed' (nothing is added any more) or
    'failed' (it never got a head). Methods raise the errors of `portico_gateway.errors`.
    """

    async def grants(self, run: RunContext, call: GrantsCall) -> GrantsReply: ...

    async def reads(self, run: RunContext, call: ReadsCall) -> GrantsReply: ...

    async def commit(self, run: RunContext, call: CommitCall) -> CommitReply:
        """Idempotent. Raises Conflict for an older generation than the studio's, or a row that is not this run's."""
        ...

    async def open_row(
        self,
        session_id: str,
        *,
        run_id: str,
        lineage: str,
        generation: int,
        author_id: int | None,
        reason: str,
        name: str | None = None,
    ) -> int:
        """A pending row; without a name it is `<studio>_<n>`. Raises Conflict when the name is taken."""
        ...

    async def seal_row(self, checkpoint_id: int) -> bool:
        """No further head: 'sealed' when it has one (the answer is True), else 'failed'. May be repeated."""
        ...

    async def seal_run(self, run_id: str) -> None:
        """The run is over: as `seal_row`, for every row of it. May be repeated."""
        ...

    async def inherit(self, checkpoint_id: int, session_id: str, *, author_id: int | None) -> int:
        """A sealed row of a fork's own (same lineage, same head), so that it stands without its parent."""
        ...

    async def restore_point(self, session_id: str, checkpoint_id: int | None) -> RestorePoint | None:
        """What to start from: this checkpoint, or the studio's newest good one, with what else to try; None = none.
        Raises NotFound when the studio has no such checkpoint, Conflict when nothing of it was saved."""
        ...

    async def forget(self, session_id: str) -> None:
        """The studio is gone: its rows are dropped, its objects collected when nothing else refers to them."""
        ...

    async def list_checkpoints(
        self, session_id: str, *, search: str = "", offset: int = 0, limit: int = 100
    ) -> CheckpointPage: ...

    async def checkpoint(self, session_id: str, checkpoint_id: int) -> CheckpointView: ...

    async def rename(self, session_id: str, checkpoint_id: int, name: str) -> CheckpointView: ...


class Commands(Protocol):
    """The way down to an agent."""

    async def command(self, run_id: str, command: Command, *, timeout: float) -> Answer:
        """Send and wait for the answer. Raises Unavailable when none came within `timeout` seconds."""
        ...

    async def forget(self, run_id: str) -> None:
        """The run is over: what is kept of it on the way may go. Raises Unavailable."""
        ...


class Edge(Protocol):
    """The way to the edge workers."""

    async def push(self, route: Route) -> None: ...

    async def remove(self, session_id: str) -> None: ...

    async def revoke(self, *, session_id: str = "", run: str = "") -> None:
        """Cut what is open for this studio or run."""
        ...

    async def probe(self, session_id: str, port: int, path: str, timeout: float) -> ProbeReply:
        """Ask the tool through the tunnel; status 0 = no answer."""
        ...


class ToolInstaller(Protocol):
    """Puts a tool into the tools folder, once for all studios."""

    def installed(self, tool: str) -> bool: ...

    def folder(self, tool: str) -> Path | None:
        """Where it lies once installed; None = the tool needs no folder."""
        ...

    async def install(self, tool: str, log: Callable[[str], None]) -> None:
        """Raises Unavailable with the installer's last words; may be called again, also at the same time."""
        ...


@dataclass(frozen=True, slots=True)
class Policy:
    """What a workspace settles for all its studios."""

    lifespan_hours: int | None = None  # None = free to choose
    private_by_default: bool = False


class Rights(Protocol):
    """Who may do what: the one place that decides, and the people it knows."""

    async def authorise(self, actor: Actor, action: Action, target: StudioRights | int) -> None:
        """For a studio, or a workspace's id. Raises NotFound for what the actor may not even see, else Forbidden."""
        ...

    async def permitted(self, actor: Actor, studios: Sequence[StudioRights]) -> list[frozenset[Action]]:
        """What the actor may do with each; empty for one they may not even see."""
        ...

    async def policy(self, workspace_id: int) -> Policy: ...

    async def users(self, ids: Iterable[int]) -> dict[int, User]: ...
