"""Studios with everything around them in memory: real SQLite, a clock that jumps, agents that answer at once.

`async with studio_world() as world` gives a running lifecycle. `world.agent(run)` plays the agent of a run.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from portico_gateway.auth.values import Action, Actor, Role, StudioRights, User
from portico_gateway.compute.memory import MemoryCompute
from portico_gateway.errors import Conflict, Forbidden, NotFound, PorticoError, Unavailable
from portico_gateway.link.messages import ProbeReply, Route
from portico_gateway.settings import Settings
from portico_gateway.store.engine import Store
from portico_gateway.store.tables import checkpoints, organisations, users, workspaces
from portico_gateway.studios.events import EventHub
from portico_gateway.studios.lifecycle import Lifecycle
from portico_gateway.studios.live_run import LiveRun
from portico_gateway.studios.logs import RunLogs
from portico_gateway.studios.needs import Policy
from portico_gateway.studios.parts import Parts
from portico_gateway.studios.presence import Visitors
from portico_gateway.studios.records import Pair, Records
from portico_gateway.studios.routes import RouteTable
from portico_gateway.studios.run_context import RunContext
from portico_gateway.studios.service import StudioService
from portico_gateway.studios.values import (
    CheckpointPage,
    CheckpointView,
    Configuration,
    NewStudio,
    Status,
    StudioView,
)
from portico_shared.clock import JumpingClock
from portico_shared.messages import (
    Answer,
    CheckpointDone,
    Command,
    CommitCall,
    CommitReply,
    GrantsCall,
    GrantsReply,
    MakeCheckpoint,
    Phase,
    ReadsCall,
    RestorePoint,
    Stop,
    ToolState,
)
from portico_shared.messages import Status as AgentStatus

WORKSPACE = 1
OWNER = Actor(User(1, "olga", "olga@example.org", "Olga", is_admin=True), "s1", "127.0.0.1")
MAINTAINER = Actor(User(2, "mia", "mia@example.org", "Mia"), "s2", "127.0.0.1")
LAUNCHER = Actor(User(3, "leo", "leo@example.org", "Leo"), "s3", "127.0.0.1")
CONNECTOR = Actor(User(4, "cleo", "cleo@example.org", "Cleo"), "s4", "127.0.0.1")
VIEWER = Actor(User(5, "vera", "vera@example.org", "Vera"), "s5", "127.0.0.1")
STRANGER = Actor(User(6, "stan", "stan@example.org", "Stan"), "s6", "127.0.0.1")
PEOPLE = (OWNER, MAINTAINER, LAUNCHER, CONNECTOR, VIEWER, STRANGER)

_LEVELS = {
    Action.STUDIO_READ: Role.VIEW,
    Action.CONNECT: Role.CONNECT,
    Action.EXTEND: Role.CONNECT,
    Action.STUDIO_EXECUTE: Role.LAUNCH,
    Action.STUDIO_WRITE: Role.MAINTAIN,
    Action.STUDIO_DELETE: Role.MAINTAIN,
}


class FailingStore(Store):
    """The real store, which can be told to be away."""

    away: PorticoError | None = None

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        if self.away is not None:
            raise self.away
        async with super().begin() as connection:
            yield connection


class MemoryRights:
    """`Rights` over a dict of roles."""

    def __init__(self) -> None:
        self.roles = {
            (WORKSPACE, 1): Role.OWNER,
            (WORKSPACE, 2): Role.MAINTAIN,
            (WORKSPACE, 3): Role.LAUNCH,
            (WORKSPACE, 4): Role.CONNECT,
            (WORKSPACE, 5): Role.VIEW,
        }
        self.fixed = Policy()

    def _allowed(self, actor: Actor, target: StudioRights | int) -> frozenset[Action]:
        workspace = target if isinstance(target, int) else target.workspace_id
        role = self.roles.get((workspace, actor.user.id))
        found = {action for action, level in _LEVELS.items() if role is not None and role >= level}
        named = isinstance(target, int) or actor.user.id in (target.creator_id, *target.allowed_user_ids)
        if not (named or isinstance(target, int)) and target.is_private:
            found -= {Action.CONNECT, Action.EXTEND}
            if role is not None and role < Role.ADMIN:
                found &= {Action.STUDIO_READ}
        return frozenset(found)

    async def authorise(self, actor: Actor, action: Action, target: StudioRights | int) -> None:
        allowed = self._allowed(actor, target)
        if Action.STUDIO_READ not in allowed:
            raise NotFound("there is no such thing, or it is not for you to see")
        if action not in allowed:
            raise Forbidden("your role does not reach that far")

    async def permitted(self, actor: Actor, studios: Sequence[StudioRights]) -> list[frozenset[Action]]:
        return [self._allowed(actor, studio) for studio in studios]

    async def policy(self, workspace_id: int) -> Policy:
        return self.fixed

    async def users(self, ids: Iterable[int]) -> dict[int, User]:
        return {actor.user.id: actor.user for actor in PEOPLE if actor.user.id in set(ids)}


@dataclass
class Row:
    id: int
    session_id: str
    run_id: str
    name: str
    reason: str
    lineage: str
    generation: int
    author_id: int | None
    status: str = "pending"
    head: str = ""


class MemoryCatalogue:
    """`Catalogue` in memory; ids and names stand in the store as well, for who looks up a copy's parent."""

    def __init__(self, clock: JumpingClock, store: Store) -> None:
        self.rows: dict[int, Row] = {}
        self._clock = clock
        self._store = store
        self._ids = itertools.count(1)
        self.fail_next: PorticoError | None = None

    async def grants(self, run: RunContext, call: GrantsCall) -> GrantsReply:
        return GrantsReply(grants=())

    async def reads(self, run: RunContext, call: ReadsCall) -> GrantsReply:
        return GrantsReply(grants=())

    async def commit(self, run: RunContext, call: CommitCall) -> CommitReply:
        row = self.rows[call.row or run.checkpoint_id]
        if row.run_id != run.run_id:
            raise Conflict("that row is another run's")
        row.head, row.status = call.head.hash, "saved"
        return CommitReply(checkpoint_id=row.id, name=row.name)

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
        if self.fail_next is not None:
            error, self.fail_next = self.fail_next, None
            raise error
        taken = {row.name for row in self.rows.values() if row.session_id == session_id}
        if name in taken:
            raise Conflict(f"a checkpoint named '{name}' exists already")
        number = next(self._ids)
        self.rows[number] = Row(
            number, session_id, run_id, name or f"checkpoint_{number}", reason, lineage, generation, author_id
        )
        await self._write(self.rows[number])
        return number

    async def _write(self, row: Row) -> None:
        values = {"id": row.id, "session_id": row.session_id, "name": row.name, "status": row.status, "created": 0}
        async with self._store.begin() as db:
            await db.execute(checkpoints.insert().values(lineage=row.lineage, **values))

    async def seal_row(self, checkpoint_id: int) -> bool:
        row = self.rows[checkpoint_id]
        row.status = "sealed" if row.head else "failed"
        return bool(row.head)

    async def seal_run(self, run_id: str) -> None:
        for row in self.rows.values():
            if row.run_id == run_id and row.status in ("pending", "saved"):
                await self.seal_row(row.id)

    async def inherit(self, checkpoint_id: int, session_id: str, *, author_id: int | None) -> int:
        if self.fail_next is not None:
            error, self.fail_next = self.fail_next, None
            raise error
        source, number = self.rows[checkpoint_id], next(self._ids)
        self.rows[number] = replace(
            source, id=number, session_id=session_id, run_id="", status="sealed", reason="fork", author_id=author_id
        )
        await self._write(self.rows[number])
        return number

    async def restore_point(self, session_id: str, checkpoint_id: int | None) -> RestorePoint | None:
        rows = [row for row in self.rows.values() if row.session_id == session_id and row.head]
        if checkpoint_id is not None:
            rows = [row for row in rows if row.id == checkpoint_id]
            if not rows:
                raise NotFound("the studio has no such checkpoint")
        if not rows:
            return None
        return RestorePoint(head=rows[-1].head, checkpoint_id=rows[-1].id, name=rows[-1].name, size=1)

    async def forget(self, session_id: str) -> None:
        self.rows = {number: row for number, row in self.rows.items() if row.session_id != session_id}

    def _view(self, row: Row) -> CheckpointView:
        return CheckpointView(
            id=row.id,
            session_id=row.session_id,
            name=row.name,
            status=row.status,
            reason=row.reason,
            author=None,
            created=self._clock.now(),
            saved=self._clock.now() if row.head else None,
            content_bytes=0,
            uploaded_bytes=0,
            entries=0,
            path=f"{row.lineage}/heads/{row.head}",
            restorable=bool(row.head),
        )

    async def list_checkpoints(
        self, session_id: str, *, search: str = "", offset: int = 0, limit: int = 100
    ) -> CheckpointPage:
        found = [self._view(row) for row in self.rows.values() if row.session_id == session_id and search in row.name]
        return CheckpointPage(tuple(reversed(found))[offset : offset + limit], len(found))

    async def checkpoint(self, session_id: str, checkpoint_id: int) -> CheckpointView:
        row = self.rows.get(checkpoint_id)
        if row is None or row.session_id != session_id:
            raise NotFound("the studio has no such checkpoint")
        return self._view(row)

    async def rename(self, session_id: str, checkpoint_id: int, name: str) -> CheckpointView:
        await self.checkpoint(session_id, checkpoint_id)
        self.rows[checkpoint_id].name = name
        return self._view(self.rows[checkpoint_id])


class MemoryEdge:
    """`Edge`: what was pushed, and tools that answer on the ports in `answers`."""

    def __init__(self) -> None:
        self.routes: dict[str, Route] = {}
        self.history: list[Route] = []
        self.revoked: list[tuple[str, str]] = []
        self.answers: dict[str, int] = {}

    async def push(self, route: Route) -> None:
        self.routes[route.session_id] = route
        self.history.append(route)

    async def remove(self, session_id: str) -> None:
        self.routes.pop(session_id, None)

    async def revoke(self, *, session_id: str = "", run: str = "") -> None:
        self.revoked.append((session_id, run))

    async def probe(self, session_id: str, port: int, path: str, timeout: float) -> ProbeReply:
        route = self.routes.get(session_id)
        known = route is not None and route.port == port
        return ProbeReply(id=1, status=self.answers.get(session_id, 0) if known else 0)


class MemoryInstaller:
    """`ToolInstaller`: installed at once, unless told to wait or to fail."""

    def __init__(self) -> None:
        self.tools = {"jupyter"}
        self.go_on = asyncio.Event()
        self.error: PorticoError | None = None

    def installed(self, tool: str) -> bool:
        return tool in self.tools

    def folder(self, tool: str) -> Path | None:
        return Path("/nowhere") / tool

    async def install(self, tool: str, log: Callable[[str], None]) -> None:
        log(f"installing {tool}")
        await self.go_on.wait()
        if self.error is not None:
            raise self.error
        self.tools.add(tool)


@dataclass
class PlayedAgent:
    """What the agent of one run does, said from outside. `obeys`: a stop is followed at once and to the end."""

    world: "World"
    run_id: str
    number: int = 1
    seq: int = 0
    obeys: bool = True
    answers: bool = True
    saves: bool = True
    silent: bool = False  # takes commands and never answers: it dies over them
    commands: list[Command] = field(default_factory=list)

    async def says(self, phase: Phase, tool: ToolState = "none", **more: object) -> None:
        self.seq += 1
        status = AgentStatus(run=self.run_id, agent=self.number, seq=self.seq, phase=phase, tool=tool, **more)  # type: ignore[arg-type]
        await self.world.lifecycle.on_message(self.run_id, status)

    async def will(self) -> None:
        """The broker speaks for it: the connection is gone."""
        status = AgentStatus(run=self.run_id, agent=self.number, seq=0, phase="unreachable")
        await self.world.lifecycle.on_message(self.run_id, status)

    async def comes_up(self, *, port: int = 8888) -> None:
        await self.says("launching", "starting", tool_port=port)
        live = self.world.lifecycle.live_run(self.run_id)
        assert live is not None
        self.world.edge.answers[live.run.session_id] = 200
        await self.says("running", "up", tool_port=port)

    async def commits(self, reason: str, row: int = 0, head: str = "") -> None:
        live = self.world.lifecycle.live_run(self.run_id)
        assert live is not None
        number = row or live.run.checkpoint_id
        assert number is not None
        self.world.catalogue.rows[number].head = head or f"head-{self.run_id}-{self.seq}-{reason}"
        self.world.catalogue.rows[number].status = "saved"
        await live.on_commit(reason)

    async def command(self, command: Command) -> Answer:
        self.commands.append(command)
        if self.silent:
            await asyncio.Event().wait()
        if not self.answers:
            raise Unavailable("the agent did not answer")
        if isinstance(command, MakeCheckpoint):
            if not self.saves:
                return Answer(id=command.id, run=self.run_id, ok=False, detail="the disk is full")
            await self.commits("request", command.row)
            return Answer(id=command.id, run=self.run_id, ok=True)
        if isinstance(command, Stop) and self.obeys:
            await self.leaves()
        return Answer(id=command.id, run=self.run_id, ok=True)

    async def leaves(self) -> None:
        await self.says("stopping", "exited")
        if self.saves:
            await self.commits("stop")
            done = CheckpointDone(run=self.run_id, at=0.0, ok=True, reason="stop")
            await self.world.lifecycle.on_message(self.run_id, done)
        await self.says("left", "exited")
        self.world.compute.leave(self.run_id)


class MemoryCommands:
    """`Commands`: straight to the played agents."""

    def __init__(self) -> None:
        self.agents: dict[str, PlayedAgent] = {}
        self.forgotten: list[str] = []

    async def forget(self, run_id: str) -> None:
        self.forgotten.append(run_id)

    async def command(self, run_id: str, command: Command, *, timeout: float) -> Answer:
        if run_id not in self.agents:
            raise Unavailable("the agent did not answer")
        return await self.agents[run_id].command(command)


class World:
    def __init__(self, store: FailingStore, folder: Path, settings: Settings, compute: MemoryCompute) -> None:
        self.clock = JumpingClock()
        self.store = store
        self.rights = MemoryRights()
        self.catalogue = MemoryCatalogue(self.clock, store)
        self.compute = compute
        self.commands = MemoryCommands()
        self.edge = MemoryEdge()
        self.installer = MemoryInstaller()
        self.hub = EventHub()
        self.parts = Parts(
            settings=settings,
            clock=self.clock,
            store=store,
            records=Records(store, self.clock),
            catalogue=self.catalogue,
            compute=compute,
            commands=self.commands,
            edge=self.edge,
            installer=self.installer,
            logs=RunLogs(folder / "runs"),
            hub=self.hub,
            routes=RouteTable(self.edge),
            visitors=Visitors(self.clock),
        )
        self.lifecycle = Lifecycle(self.parts)
        self.studios = StudioService(self.lifecycle, self.rights)

    async def restart(self) -> None:
        """The control process is gone and a new one begins; only store, compute and disk remain."""
        self.edge = MemoryEdge()
        self.parts = replace(
            self.parts, edge=self.edge, hub=EventHub(), routes=RouteTable(self.edge), visitors=Visitors(self.clock)
        )
        self.hub = self.parts.hub
        self.lifecycle = Lifecycle(self.parts)
        self.studios = StudioService(self.lifecycle, self.rights)

    @asynccontextmanager
    async def alive(self) -> AsyncIterator[None]:
        """Run the lifecycle while the block lasts; then cancel it as the end of the process does."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.lifecycle.run())
            await self.lifecycle.adopted.wait()
            try:
                yield
            finally:
                task.cancel()

    async def add(self, name: str = "one", actor: Actor = OWNER, **more: object) -> StudioView:
        new = NewStudio(
            name=name,
            template="portico/jupyterlab:4.6",
            compute_env_id="memory",
            configuration=Configuration(),
            **more,  # type: ignore[arg-type]
        )
        return await self.studios.add(actor, WORKSPACE, new, start=False)

    def live(self, session_id: str) -> LiveRun:
        live = self.lifecycle.live(session_id)
        assert live is not None, "no run lives"
        return live

    def agent(self, session_id: str) -> PlayedAgent:
        """The agent of the studio's live run; made on first use."""
        run_id = self.live(session_id).run.id
        return self.commands.agents.setdefault(run_id, PlayedAgent(self, run_id))

    async def pair(self, session_id: str) -> Pair:
        pair = await self.parts.records.pair(session_id)
        assert pair is not None
        return pair

    async def until(self, session_id: str, wanted: Status, *, seconds: float = 3000.0, step: float = 0.5) -> None:
        """Let time pass until the studio's status is `wanted`."""
        passed = 0.0
        while (await self.pair(session_id)).studio.status is not wanted:
            assert passed < seconds, f"still {(await self.pair(session_id)).studio}"
            await self.clock.jump(step)
            await self.settles()
            passed += step

    async def passes(self, seconds: float, *, step: float = 0.5) -> None:
        """Let time pass; each step gives the store and all tasks their turn."""
        done = 0.0
        while done < seconds:
            await self.clock.jump(min(step, seconds - done))
            done += step
            await self.settles()

    async def settles(self) -> None:
        """Everything that can go on now has gone on: the store has answered a few questions in a row."""
        for _ in range(3):
            with contextlib.suppress(Exception):
                async with Store.begin(self.store) as db:
                    await db.execute(sa.select(1))

    async def placed(self, session_id: str) -> None:
        while self.live(session_id).run.placement is None:
            await self.settles()

    async def run(self, session_id: str, actor: Actor = OWNER) -> PlayedAgent:
        """Start the studio and bring it all the way up."""
        await self.studios.start(actor, session_id)
        await self.placed(session_id)
        agent = self.agent(session_id)
        await agent.comes_up()
        await agent.commits("start")
        await self.until(session_id, Status.RUNNING)
        return agent

    async def stop(self, session_id: str) -> None:
        await self.studios.stop(OWNER, session_id)
        await self.until(session_id, Status.STOPPED)


@asynccontextmanager
async def studio_world(
    folder: Path, *, compute: MemoryCompute | None = None, alive: bool = True, **options: object
) -> AsyncIterator[World]:
    async with FailingStore(f"sqlite+aiosqlite:///{folder / 'portico.db'}") as store:
        async with store.begin() as db:
            for actor in PEOPLE:
                user = actor.user
                values = {"user_name": user.user_name, "email": user.email, "display_name": user.display_name}
                await db.execute(users.insert().values(id=user.id, created=0, is_admin=user.is_admin, **values))
            await db.execute(organisations.insert().values(id=1, name="lab", created=0))
            for number, name in ((WORKSPACE, "main"), (2, "other")):
                await db.execute(workspaces.insert().values(id=number, org_id=1, name=name, created=0))
        settings = Settings(data=folder, **options)  # type: ignore[arg-type]
        world = World(store, folder, settings, compute or MemoryCompute())
        if alive:
            async with world.alive():
                yield world
        else:
            yield world
