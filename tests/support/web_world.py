"""A small Portico in memory for the pages: people, workspaces and studios that behave as the promises say.

`World` holds everything; `world.studios`, `world.auth` and `world.people` are the doors that pages are given.
`serve(world)` runs the pages on a free port; `world.change(...)` lets a studio move on and tells whoever watches.
"""

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web

from portico_gateway.auth.values import Actor, Member, Role, User, Workspace
from portico_gateway.errors import BadRequest, Conflict, Forbidden, NotFound, Unauthenticated
from portico_gateway.settings import Settings
from portico_gateway.studios.values import (
    CheckpointPage,
    CheckpointView,
    ComputeEnv,
    Configuration,
    Connection,
    ForkStudio,
    LogChunk,
    NewStudio,
    ParentCheckpoint,
    ProgressStep,
    StartOverride,
    Status,
    StopReason,
    StudioChange,
    StudioEvent,
    StudioPage,
    StudioView,
    Template,
)
from portico_gateway.web.app import build_web
from portico_gateway.web.doors import Invitation, Link, SignIn, Token
from portico_gateway.web.studio_pages import build_studio_pages
from portico_shared.clock import Clock, SystemClock
from portico_shared.ids import new_session_id

PASSWORD = "correct horse battery"
JUPYTER = Template(
    "portico/jupyterlab:4.6",
    "jupyter",
    "JupyterLab",
    "jupyter",
    "recommended",
    "Notebooks, terminals, several people at once",
)
MACHINE = ComputeEnv(
    id="local",
    name="This machine",
    platform="local",
    region="",
    status="AVAILABLE",
    isolation="full",
    isolation_note=(
        "Each studio has its own files, processes and network; it reaches the internet, but neither this machine's "
        "private files and ports nor other studios. The kernel is shared."
    ),
    shared=True,
    cpus=8,
    memory=32768,
)
_STOPPABLE = (Status.RUNNING, Status.STARTING, Status.BUILDING)
_STILL = (Status.STOPPED, Status.ERRORED, Status.BUILD_FAILED)


@dataclass
class World:
    """State, open to tests."""

    settings: Settings = field(default_factory=lambda: Settings(listen="127.0.0.1:8000"))
    clock: Clock = field(default_factory=SystemClock)
    users: dict[int, User] = field(default_factory=dict)
    passwords: dict[int, str] = field(default_factory=dict)
    workspaces: dict[int, Workspace] = field(default_factory=dict)
    roles: dict[tuple[int, int], Role] = field(default_factory=dict)  # (workspace, user)
    rows: dict[str, StudioView] = field(default_factory=dict)
    saved: dict[str, list[CheckpointView]] = field(default_factory=dict)
    log: dict[str, str] = field(default_factory=dict)
    cookies: dict[str, int] = field(default_factory=dict)  # cookie -> user
    links: dict[str, Link] = field(default_factory=dict)
    tokens: dict[int, list[Token]] = field(default_factory=dict)
    codes: list[tuple[str, int, str, bytes, str]] = field(default_factory=list)
    watchers: list[asyncio.Queue[StudioEvent]] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)
    """What was asked of the studios: (verb, session id)."""

    def __post_init__(self) -> None:
        self.studios = MemoryStudios(self)
        self.auth = MemoryAuth(self)
        self.people = MemoryPeople(self)
        self._next = 100

    def number(self) -> int:
        self._next += 1
        return self._next

    def user(self, name: str, display: str = "", *, admin: bool = False) -> User:
        made = User(self.number(), name, f"{name}@example.org", display, admin)
        self.users[made.id] = made
        self.passwords[made.id] = PASSWORD
        return made

    def workspace(self, name: str, full: str = "", **roles: Role) -> Workspace:
        made = Workspace(self.number(), 1, name, full, "Lab")
        self.workspaces[made.id] = made
        for who, role in roles.items():
            self.roles[made.id, next(u.id for u in self.users.values() if u.user_name == who)] = role
        return made

    def add(self, workspace: Workspace, creator: User, name: str, status: Status, **values: Any) -> StudioView:
        now = self.clock.now()
        session = values.pop("session_id", None) or new_session_id()
        made = StudioView(
            **{
                "session_id": session,
                "workspace_id": workspace.id,
                "name": name,
                "description": "",
                "creator": creator,
                "url": self.settings.studio_url(session),
                "compute_env": MACHINE,
                "template": JUPYTER,
                "configuration": values.pop("configuration", None) or Configuration(),
                "created": now - 86400 * 3,
                "updated": now - 3600,
                "last_started": None,
                "status": status,
                "status_message": "",
                "status_at": now - 600,
                "stop_reason": None,
                "is_private": False,
                **values,
            }
        )
        self.rows[session] = made
        self.saved.setdefault(session, [])
        return made

    def checkpoint(self, session: str, name: str, age: float, **values: Any) -> CheckpointView:
        now = self.clock.now()
        made = CheckpointView(
            **{
                "id": self.number(),
                "session_id": session,
                "name": name,
                "status": "sealed",
                "reason": "stop",
                "author": self.rows[session].creator,
                "created": now - age,
                "saved": now - age,
                "content_bytes": 412_000_000,
                "uploaded_bytes": 18_400_000,
                "entries": 12873,
                "path": "l0/heads/0",
                **values,
            }
        )
        self.saved[session].append(made)
        self.saved[session].sort(key=lambda c: -c.created)
        return made

    def change(self, session: str, kind: str = "status", **values: Any) -> None:
        """A studio moves on; watchers hear of it."""
        self.rows[session] = replace(self.rows[session], **values)
        self.tell(session, kind)

    def tell(self, session: str, kind: str) -> None:
        row = self.rows.get(session)
        for watcher in self.watchers:
            watcher.put_nowait(StudioEvent(row.workspace_id if row else 0, session, kind))

    def write_log(self, session: str, text: str) -> None:
        self.log[session] = self.log.get(session, "") + text
        self.tell(session, "log")

    def cookie_of(self, user: User) -> str:
        """Sign somebody in without the form."""
        cookie = secrets.token_urlsafe(16)
        self.cookies[cookie] = user.id
        return cookie

    def role(self, workspace_id: int, user_id: int) -> Role | None:
        return self.roles.get((workspace_id, user_id))

    def actor(self, user: User) -> Actor:
        return Actor(user, f"s{user.id}")


class MemoryStudios:
    """Implements `studios.values.Studios`."""

    def __init__(self, world: World) -> None:
        self.world = world

    def templates(self) -> tuple[Template, ...]:
        return (JUPYTER,)

    def compute_envs(self) -> tuple[ComputeEnv, ...]:
        return (MACHINE,)

    async def list_studios(
        self, actor: Actor, workspace_id: int, *, search: str = "", offset: int = 0, limit: int = 100
    ) -> StudioPage:
        self._role(actor, workspace_id)
        found = [r for r in self.world.rows.values() if r.workspace_id == workspace_id and _fits(r, search)]
        found.sort(key=lambda r: (r.status is not Status.RUNNING, r.status in _STILL, -r.updated))
        return StudioPage(tuple(self._seen(actor, r) for r in found[offset : offset + limit]), len(found))

    async def describe(self, actor: Actor, session_id: str, workspace_id: int | None = None) -> StudioView:
        row = self.world.rows.get(session_id)
        if row is None or self.world.role(row.workspace_id, actor.user.id) is None:
            raise NotFound("there is no such studio, or it is not for you to see")
        return self._seen(actor, row)

    async def validate_name(self, actor: Actor, workspace_id: int, name: str) -> None:
        if any(r.name == name and r.workspace_id == workspace_id for r in self.world.rows.values()):
            raise Conflict(f"a studio named '{name}' exists already in this workspace")

    async def add(self, actor: Actor, workspace_id: int, new: NewStudio, *, start: bool) -> StudioView:
        if self._role(actor, workspace_id) < Role.MAINTAIN:
            raise Forbidden("adding a studio takes the role Maintain")
        name = new.name or f"studio-{self.world.number()}"
        await self.validate_name(actor, workspace_id, name)
        made = self.world.add(
            self.world.workspaces[workspace_id],
            actor.user,
            name,
            Status.STARTING if start else Status.STOPPED,
            description=new.description,
            configuration=new.configuration,
            is_private=bool(new.is_private),
        )
        self.world.calls.append(("add", made.session_id))
        self.world.tell(made.session_id, "added")
        return self._seen(actor, made)

    async def update(self, actor: Actor, session_id: str, change: StudioChange) -> StudioView:
        view = await self._may(actor, session_id, "edit")
        values = {
            key: value
            for key in ("name", "description", "configuration", "is_private")
            if (value := getattr(change, key)) is not None
        }
        if change.name and change.name != view.name:
            await self.validate_name(actor, view.workspace_id, change.name)
        self.world.change(session_id, **values)
        return await self.describe(actor, session_id)

    async def delete(self, actor: Actor, session_id: str) -> None:
        await self._may(actor, session_id, "delete")
        self.world.calls.append(("delete", session_id))
        self.world.tell(session_id, "deleted")
        del self.world.rows[session_id]

    async def start(self, actor: Actor, session_id: str, override: StartOverride | None = None) -> StudioView:
        await self._may(actor, session_id, "start")
        self.world.calls.append(("start", session_id))
        now = self.world.clock.now()
        self.world.change(
            session_id, status=Status.STARTING, status_message="", status_at=now, progress=(), last_started=now
        )
        return await self.describe(actor, session_id)

    async def stop(self, actor: Actor, session_id: str) -> StudioView:
        await self._may(actor, session_id, "stop")
        self.world.calls.append(("stop", session_id))
        self.world.change(session_id, status=Status.STOPPING)
        return await self.describe(actor, session_id)

    async def extend(self, actor: Actor, session_id: str) -> StudioView:
        view = await self._may(actor, session_id, "extend")
        self.world.change(session_id, lifespan_ends=(view.lifespan_ends or 0) + 3600 * 8)
        return await self.describe(actor, session_id)

    async def fork(self, actor: Actor, session_id: str, checkpoint_id: int | None, new: ForkStudio) -> StudioView:
        view = await self._may(actor, session_id, "fork")
        name = new.name or f"{view.name}-copy"
        await self.validate_name(actor, view.workspace_id, name)
        rows = self.world.saved[session_id]
        parent = next((c for c in rows if checkpoint_id in (None, c.id)), None)
        made = self.world.add(
            self.world.workspaces[view.workspace_id],
            actor.user,
            name,
            Status.STARTING if new.start else Status.STOPPED,
            parent=ParentCheckpoint(parent.id, parent.name, session_id, view.name) if parent else None,
        )
        self.world.calls.append(("fork", made.session_id))
        return self._seen(actor, made)

    async def checkpoint_now(self, actor: Actor, session_id: str, name: str | None = None) -> CheckpointView:
        view = await self._may(actor, session_id, "checkpoint")
        made = self.world.checkpoint(
            session_id, name or f"{view.name}_{self.world.number()}", 0, status="pending", saved=None, reason="request"
        )
        self.world.tell(session_id, "checkpoint")
        return made

    async def list_checkpoints(
        self, actor: Actor, session_id: str, *, search: str = "", offset: int = 0, limit: int = 100
    ) -> CheckpointPage:
        await self.describe(actor, session_id)
        rows = self.world.saved[session_id]
        return CheckpointPage(tuple(rows[offset : offset + limit]), len(rows))

    async def checkpoint(self, actor: Actor, session_id: str, checkpoint_id: int) -> CheckpointView:
        for row in self.world.saved.get(session_id, []):
            if row.id == checkpoint_id:
                return row
        raise NotFound("there is no such checkpoint")

    async def rename_checkpoint(self, actor: Actor, session_id: str, checkpoint_id: int, name: str) -> CheckpointView:
        rows = self.world.saved[session_id]
        name = name.replace(" ", "_")
        if any(r.name == name and r.id != checkpoint_id for r in rows):
            raise Conflict(f"a checkpoint named '{name}' exists already")
        index = next(i for i, r in enumerate(rows) if r.id == checkpoint_id)
        rows[index] = replace(rows[index], name=name)
        return rows[index]

    async def logs(self, actor: Actor, session_id: str, *, stream: str = "all", offset: int = 0) -> LogChunk:
        await self._may(actor, session_id, "logs")
        text = self.world.log.get(session_id, "")
        piece = text[offset : offset + 65536]
        return LogChunk(piece, min(len(text), offset + len(piece)), False)

    async def watch(self, actor: Actor, workspace_id: int) -> AsyncGenerator[StudioEvent, None]:
        queue: asyncio.Queue[StudioEvent] = asyncio.Queue()
        self.world.watchers.append(queue)
        try:
            while True:
                event = await queue.get()
                if event.workspace_id == workspace_id:
                    yield event
        finally:
            self.world.watchers.remove(queue)

    def _role(self, actor: Actor, workspace_id: int) -> Role:
        role = self.world.role(workspace_id, actor.user.id)
        if role is None:
            raise NotFound("there is no such workspace")
        return role

    async def _may(self, actor: Actor, session_id: str, action: str) -> StudioView:
        view = await self.describe(actor, session_id)
        if action not in view.actions:
            raise Forbidden(view.refusals[action])
        return view

    def _seen(self, actor: Actor, row: StudioView) -> StudioView:
        role = self._role(actor, row.workspace_id)
        needs = {
            "connect": 2,
            "extend": 2,
            "logs": 2,
            "start": 3,
            "stop": 3,
            "checkpoint": 3,
            "fork": 4,
            "edit": 4,
            "delete": 4,
        }
        when = {
            "connect": (Status.RUNNING,),
            "extend": (Status.RUNNING,),
            "checkpoint": (Status.RUNNING,),
            "start": (Status.STOPPED, Status.ERRORED),
            "stop": (*_STOPPABLE, Status.STOPPING),
            "edit": _STILL,
            "delete": _STILL,
        }
        refusals: dict[str, str] = {}
        for action, least in needs.items():
            if role < least:
                refusals[action] = (
                    f"This takes the role {Role(least).label.capitalize()}; yours is {role.label.capitalize()}"
                )
            elif action in when and row.status not in when[action]:
                refusals[action] = f"Not while it is {row.status.value}"
        ends = row.lifespan_ends if row.status is Status.RUNNING else None
        newest = next((c.saved for c in self.world.saved[row.session_id] if c.saved), None)
        return replace(
            row,
            actions=frozenset(needs) - refusals.keys(),
            refusals=refusals,
            lifespan_ends=ends,
            last_checkpoint=row.last_checkpoint or newest,
        )


def _fits(row: StudioView, search: str) -> bool:
    for term in search.split():
        key, colon, value = term.partition(":")
        if colon and key == "status":
            if value not in {s.value for s in Status}:
                raise BadRequest(f"there is no status '{value}'")
            if row.status.value != value:
                return False
        elif colon and key == "author":
            if value not in row.creator.user_name:
                return False
        elif term.lower() not in row.name.lower():
            return False
    return True


class MemoryAuth:
    """Implements `web.doors.Auth`."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def sign_in(self, login: str, password: str, *, peer: str, agent: str) -> str:
        for user in self.world.users.values():
            if login in (user.user_name, user.email) and self.world.passwords[user.id] == password:
                return self.world.cookie_of(user)
        raise Unauthenticated("user name and password do not match an account")

    async def actor_from_cookie(self, cookie: str, peer: str) -> Actor | None:
        user = self.world.users.get(self.world.cookies.get(cookie, 0))
        return self.world.actor(user) if user else None

    async def actor_of(self, user_id: int, sign_in: str, peer: str) -> Actor | None:
        user = self.world.users.get(user_id)
        return self.world.actor(user) if user and sign_in == f"s{user_id}" else None

    async def sign_out(self, cookie: str) -> None:
        self.world.cookies.pop(cookie, None)

    async def link(self, secret: str) -> Link:
        if secret not in self.world.links:
            raise NotFound("this link is used up or too old; ask for another one")
        return self.world.links[secret]

    async def use_link(self, secret: str, *, password: str, display_name: str, peer: str, agent: str) -> str:
        link = await self.link(secret)
        del self.world.links[secret]
        self.world.passwords[link.user.id] = password
        self.world.users[link.user.id] = replace(link.user, display_name=display_name)
        return self.world.cookie_of(link.user)

    async def handover_code(self, actor: Actor, session_id: str, nonce_hash: bytes, location: str) -> str:
        row = self.world.rows.get(session_id)
        role = self.world.role(row.workspace_id, actor.user.id) if row else None
        if role is None:
            raise NotFound("there is no such studio, or it is not for you to see")
        if role < Role.CONNECT:
            raise Forbidden("opening studios takes the role Connect; yours is View")
        code = secrets.token_urlsafe(16)
        self.world.codes.append((code, actor.user.id, session_id, nonce_hash, location))
        return code

    async def sign_ins(self, actor: Actor) -> tuple[SignIn, ...]:
        now = self.world.clock.now()
        mine = [c for c, u in self.world.cookies.items() if u == actor.user.id]
        agent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
        return tuple(
            SignIn(i + 1, now - 7200 * (i + 1), now - 60 * i, now + 86400, "192.0.2.7", agent, i == 0)
            for i, _ in enumerate(mine)
        )

    async def end_sign_in(self, actor: Actor, sign_in_id: int) -> None:
        mine = [c for c, u in self.world.cookies.items() if u == actor.user.id]
        if not 1 <= sign_in_id <= len(mine):
            raise NotFound("there is no such sign-in")
        del self.world.cookies[mine[sign_in_id - 1]]

    async def tokens(self, actor: Actor) -> tuple[Token, ...]:
        return tuple(self.world.tokens.get(actor.user.id, []))

    async def make_token(self, actor: Actor, name: str, days: int | None) -> str:
        mine = self.world.tokens.setdefault(actor.user.id, [])
        if any(t.name == name for t in mine):
            raise Conflict(f"you have a token named '{name}' already")
        now = self.world.clock.now()
        mine.append(Token(self.world.number(), name, now, None, now + days * 86400 if days else None))
        return "pt_" + hashlib.sha256(name.encode()).hexdigest()[:40]

    async def delete_token(self, actor: Actor, token_id: int) -> None:
        mine = self.world.tokens.get(actor.user.id, [])
        self.world.tokens[actor.user.id] = [t for t in mine if t.id != token_id]

    async def change_password(self, actor: Actor, old: str, new: str) -> None:
        if self.world.passwords[actor.user.id] != old:
            raise Unauthenticated("the present password is not right")
        self.world.passwords[actor.user.id] = new


class MemoryPeople:
    """Implements `web.doors.People`."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def workspaces(self, actor: Actor) -> tuple[Workspace, ...]:
        return tuple(w for w in self.world.workspaces.values() if (w.id, actor.user.id) in self.world.roles)

    async def role(self, actor: Actor, workspace_id: int) -> Role | None:
        return self.world.role(workspace_id, actor.user.id)

    async def members(self, actor: Actor, workspace_id: int) -> tuple[Member, ...]:
        since = self.world.clock.now() - 86400 * 9
        return tuple(
            Member(self.world.users[user], role, since)
            for (workspace, user), role in self.world.roles.items()
            if workspace == workspace_id
        )

    async def invite(self, actor: Actor, workspace_id: int, email: str, role: Role) -> Invitation:
        self._admin(actor, workspace_id)
        known = next((u for u in self.world.users.values() if u.email == email), None)
        if known is not None:
            self.world.roles[workspace_id, known.id] = role
            return Invitation(known, "", 0.0)
        made = self.world.user(email.partition("@")[0])
        self.world.roles[workspace_id, made.id] = role
        secret = secrets.token_urlsafe(24)
        expires = self.world.clock.now() + 86400 * 7
        self.world.links[secret] = Link(made, "invitation", expires)
        return Invitation(made, f"{self.world.settings.base_url}/link/{secret}", expires)

    async def set_role(self, actor: Actor, workspace_id: int, user_id: int, role: Role) -> None:
        self._admin(actor, workspace_id)
        self.world.roles[workspace_id, user_id] = role

    async def remove_member(self, actor: Actor, workspace_id: int, user_id: int) -> None:
        self._admin(actor, workspace_id)
        del self.world.roles[workspace_id, user_id]

    def _admin(self, actor: Actor, workspace_id: int) -> None:
        if (self.world.role(workspace_id, actor.user.id) or 0) < Role.ADMIN:
            raise Forbidden("this takes the role Admin")


def sample_world(port: int = 8000, clock: Clock | None = None) -> World:
    """A lab on an ordinary morning: studios in every state."""
    world = World(settings=Settings(listen=f"127.0.0.1:{port}"), clock=clock or SystemClock())
    now = world.clock.now()
    ana = world.user("ana", "Ana Ruiz", admin=True)
    ben = world.user("ben", "Ben Okafor")
    chi = world.user("chi", "Chi Nguyen")
    world.user("dora")
    lab = world.workspace(
        "genomics", "Genomics lab", ana=Role.OWNER, ben=Role.MAINTAIN, chi=Role.CONNECT, dora=Role.VIEW
    )
    world.workspace("teaching", "Teaching", ana=Role.ADMIN)
    here = (Connection(ana, now - 20), Connection(ben, now - 200), Connection(chi, now - 4))
    running = world.add(
        lab, ana, "rna-seq-qc", Status.RUNNING, session_id="3fa1b2c4", connections=here, run_id="r0011223344556677",
        lifespan_ends=now + 22400, effective_lifespan_hours=8, last_started=now - 6400, status_at=now - 6300,
        description="Quality control of the March runs. Notebooks in /workspace/qc.",
    )  # fmt: skip
    for n, (age, size) in enumerate([(120, 18.4e6), (90000, 210.7e6), (260000, 402e6)]):
        world.checkpoint(
            running.session_id,
            f"rna-seq-qc_{3 - n}",
            age,
            uploaded_bytes=int(size),
            reason="interval" if n == 0 else "stop",
        )
    world.checkpoint(
        running.session_id, "before_the_big_merge", 5000, reason="request", author=ben, uploaded_bytes=1_200_000
    )
    starting = world.add(
        lab, ben, "protein-folding", Status.STARTING, session_id="0badcafe", run_id="r0011223344556678",
        last_started=now - 9, status_at=now - 9,
        progress=(
            ProgressStep(now - 9, "provisioning", "started"),
            ProgressStep(now - 8, "provisioning", "done"),
            ProgressStep(now - 8, "preparing", "started"),
            ProgressStep(now - 6, "preparing", "done"),
            ProgressStep(now - 6, "restoring", "started", "412 MB of 1.2 GB"),
        ),
    )  # fmt: skip
    world.log[starting.session_id] = "init: root is overlay on btrfs\nagent: restoring protein-folding_7\n"
    solo = world.add(
        lab, ana, "variant-calling", Status.RUNNING, session_id="51deca11", lifespan_ends=now + 2500, is_private=True,
        run_id="r0011223344556679", last_started=now - 26000,
    )  # fmt: skip
    world.checkpoint(solo.session_id, "variant-calling_1", 250)
    stopped = world.add(
        lab, chi, "figures for the paper", Status.STOPPED, session_id="ca11ab1e", stop_reason=StopReason.IDLE,
        last_started=now - 90000, status_at=now - 52000, run_id="r001122334455667a",
        status_message="Stopped because nobody was here and nothing was running since 14:02",
    )  # fmt: skip
    world.checkpoint(stopped.session_id, "figures_for_the_paper_4", 52000)
    failed = world.add(
        lab, ben, "atac-seq", Status.ERRORED, session_id="deadbeef", last_started=now - 4000, status_at=now - 3900,
        status_message="The tool ended with exit code 1 before it answered: its port 8888 is taken by another program",
        progress=(
            ProgressStep(now - 4000, "provisioning", "started"),
            ProgressStep(now - 3999, "provisioning", "done"),
            ProgressStep(now - 3999, "restoring", "started"),
            ProgressStep(now - 3992, "restoring", "done", "203 MB"),
            ProgressStep(now - 3992, "launching", "started"),
            ProgressStep(now - 3900, "launching", "failed", "exit code 1"),
        ),
        run_id="r001122334455667b",
    )  # fmt: skip
    world.checkpoint(failed.session_id, "atac-seq_2", 4200)
    world.log[failed.session_id] = "".join(
        f"[I 2026-11-21 02:1{i}] jupyterlab | extension {i} loaded\n" for i in range(9)
    ) + (
        "\x1b[31m[C 2026-11-21 02:20] ERROR: port 8888 is taken\x1b[0m\nTraceback (most recent call last):\n"
        '  File "serverapp.py", line 2711, in init_httpserver\nOSError: [Errno 98] Address already in use\n'
    )
    world.log[running.session_id] = world.log[failed.session_id]
    world.add(lab, ana, "scratch", Status.STOPPED, session_id="5c7a7c40")
    return world


@contextlib.asynccontextmanager
async def serve(world: World, port: int = 0, app: web.Application | None = None) -> AsyncIterator[int]:
    """The pages on a real server, management host and studio hosts on one port; yields the port.

    A request to a studio's host is given the edge's headers for the world's first user (the edge is not part of this).
    """
    app = app or build_web(world.studios, world.auth, world.people, world.settings, world.clock)
    handle, close = build_studio_pages(world.studios, world.auth, world.settings, world.clock)

    @web.middleware
    async def hosts(request: web.Request, handler: Any) -> web.StreamResponse:
        host = request.headers.get("Host", "").partition(":")[0]
        if host.endswith("." + world.settings.studio_domain):
            session = host.partition(".")[0][1:]
            user = next(iter(world.users.values()))
            headers = request.headers.copy()
            headers.update(
                {"X-Portico-Studio": session, "X-Portico-User": str(user.id), "X-Portico-Sign-In": f"s{user.id}"}
            )
            request = request.clone(headers=headers)
            if (
                world.rows.get(session)
                and world.rows[session].status is Status.RUNNING
                and not request.path.startswith("/_portico/")
            ):
                return web.Response(
                    text=f"<!doctype html><title>tool</title><h1>the tool at {request.path_qs}</h1>",
                    content_type="text/html",
                )
            return await handle(request)
        return await handler(request)

    app.middlewares.insert(0, hosts)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    bound = runner.addresses[0][1]
    try:
        yield bound
    finally:
        await close()
        await runner.cleanup()
