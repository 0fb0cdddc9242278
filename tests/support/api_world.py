"""The REST API on a real server, over real accounts, rights and studios; agents and machines are in memory.

One person of each role, each with a token: `world.api("leo")` speaks as Leo, `world.api()` as nobody.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import argon2
import yarl
from aiohttp import web
from aiohttp.test_utils import TestServer

from portico_gateway.api.app import build_api
from portico_gateway.api.doors import Parts
from portico_gateway.auth.labels import LabelService
from portico_gateway.auth.links import OneUseLinks
from portico_gateway.auth.passwords import Passwords
from portico_gateway.auth.people import PeopleService
from portico_gateway.auth.revocations import Revocations
from portico_gateway.auth.rights import RightsService
from portico_gateway.auth.service import AuthService
from portico_gateway.auth.values import Actor, Role, User
from portico_gateway.link.messages import SESSION_COOKIE
from portico_gateway.store.tables import members, users
from portico_gateway.studios.service import StudioService
from portico_gateway.web.app import build_web
from portico_shared.clock import JumpingClock
from support.studio_world import CONNECTOR, LAUNCHER, MAINTAINER, OWNER, STRANGER, VIEWER, WORKSPACE, studio_world
from support.studio_world import World as Rooms

ADMIN = Actor(User(7, "ada", "ada@example.org", "Ada"), "s7", "127.0.0.1")
NEWCOMER = Actor(User(8, "nina", "nina@example.org", "Nina"), "s8", "127.0.0.1")
MEMBERS = {
    OWNER: Role.OWNER,
    ADMIN: Role.ADMIN,
    MAINTAINER: Role.MAINTAIN,
    LAUNCHER: Role.LAUNCH,
    CONNECTOR: Role.CONNECT,
    VIEWER: Role.VIEW,
}
PASSWORD = "a long and simple sentence"


@dataclass(frozen=True)
class Reply:
    status: int
    value: Any
    """The decoded JSON; None for an empty body."""
    headers: Any

    @property
    def message(self) -> str:
        assert self.status >= 400
        assert set(self.value) == {"message"}
        assert isinstance(self.value["message"], str)
        assert self.value["message"]
        return self.value["message"]


@dataclass(frozen=True)
class Api:
    """One caller."""

    session: aiohttp.ClientSession
    base: str
    headers: dict[str, str]

    def open(self, method: str, path: str, **more: Any) -> Any:
        """A request as a context manager, for streams."""
        headers = {"Host": "portico.localhost:8000", **self.headers, **more.pop("headers", {})}
        url = yarl.URL(f"{self.base}{path}", encoded=True)
        return self.session.request(method, url, headers=headers, **more)

    async def send(self, method: str, path: str, body: Any = None, **more: Any) -> Reply:
        if body is not None:
            more["json"] = body
        async with self.open(method, path, **more) as response:
            raw = await response.read()
            return Reply(response.status, json.loads(raw) if raw else None, response.headers)

    async def get(self, path: str, **more: Any) -> Reply:
        return await self.send("GET", path, **more)

    async def post(self, path: str, body: Any = None, **more: Any) -> Reply:
        return await self.send("POST", path, body, **more)

    async def put(self, path: str, body: Any = None, **more: Any) -> Reply:
        return await self.send("PUT", path, body, **more)

    async def delete(self, path: str, **more: Any) -> Reply:
        return await self.send("DELETE", path, **more)


@dataclass
class ApiWorld:
    rooms: Rooms
    auth: AuthService
    people: PeopleService
    rights: RightsService
    links: OneUseLinks
    server: TestServer
    session: aiohttp.ClientSession
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def clock(self) -> JumpingClock:
        return self.rooms.clock

    def api(self, name: str = "", **headers: str) -> Api:
        if name:
            headers["Authorization"] = f"Bearer {self.tokens[name]}"
        return Api(self.session, f"http://127.0.0.1:{self.server.port}/api", headers)

    def with_cookie(self, cookie: str, **headers: str) -> Api:
        return self.api(Cookie=f"{SESSION_COOKIE}={cookie}", **headers)

    async def sign_in(self, actor: Actor) -> str:
        """The cookie of a new browser, by a one-use link."""
        async with self.rooms.store.begin() as connection:
            url, _ = await self.links.make(connection, actor.user.id, "reset")
        secret = url.rpartition("/")[2]
        return await self.auth.use_link(secret, password=PASSWORD, display_name="", peer="127.0.0.1", agent="")

    async def join(self, actor: Actor, role: Role) -> None:
        """Make somebody a member, or give them another role."""
        where = (members.c.workspace_id == WORKSPACE, members.c.user_id == actor.user.id)
        row = {"workspace_id": WORKSPACE, "user_id": actor.user.id, "role": int(role), "since": 0.0}
        async with self.rooms.store.begin() as connection:
            await connection.execute(members.delete().where(*where))
            await connection.execute(members.insert().values(**row))


@asynccontextmanager
async def api_world(folder: Path) -> AsyncIterator[ApiWorld]:
    async with studio_world(folder) as rooms:
        settings, clock, store = rooms.parts.settings, rooms.clock, rooms.store
        rights, revocations = RightsService(store), Revocations(clock)
        links = OneUseLinks(clock, settings.base_url)
        quick = Passwords(argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        auth = AuthService(store, clock, settings, rights=rights, revocations=revocations, links=links, passwords=quick)
        people = PeopleService(store, clock, rights, revocations, links)
        rooms.studios = StudioService(rooms.lifecycle, rights)
        labels = LabelService(store, clock, rights)
        app: web.Application = build_web(rooms.studios, auth, people, settings, clock)
        app.add_subapp("/api", build_api(Parts(rooms.studios, auth, people, rights, labels, settings, clock)))
        async with TestServer(app) as server, aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
            world = ApiWorld(rooms, auth, people, rights, links, server, session)
            async with store.begin() as connection:
                for user in (ADMIN.user, NEWCOMER.user):
                    values = {"user_name": user.user_name, "email": user.email, "display_name": user.display_name}
                    await connection.execute(users.insert().values(id=user.id, created=0.0, **values))
            for actor, role in MEMBERS.items():
                await world.join(actor, role)
            for actor in (*MEMBERS, STRANGER, NEWCOMER):
                world.tokens[actor.user.user_name] = await auth.make_token(actor, "test", None)
            yield world
        auth.close()
