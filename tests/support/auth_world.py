"""People over a real store, with a clock that jumps and passwords that are quick to hash.

`async with auth_world(folder) as world`: the first start has happened, and its link waits at `world.first_link`. Over
SQLite, or over the server that PORTICO_TEST_DATABASE names; its tables are emptied for each new folder.
"""

import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import argon2
import sqlalchemy as sa

from portico_gateway.auth import accounts, tokens
from portico_gateway.auth.bootstrap import bootstrap
from portico_gateway.auth.edge_answers import EdgeAnswers
from portico_gateway.auth.keys import signing_key
from portico_gateway.auth.labels import LabelService
from portico_gateway.auth.links import OneUseLinks
from portico_gateway.auth.passwords import Passwords
from portico_gateway.auth.people import PeopleService
from portico_gateway.auth.revocations import Revocations
from portico_gateway.auth.rights import RightsService, Sharing
from portico_gateway.auth.service import AuthService
from portico_gateway.auth.studio_cookies import StudioCookies
from portico_gateway.auth.values import Actor, Role, User
from portico_gateway.link.messages import Revoke
from portico_gateway.settings import Secret, Settings
from portico_gateway.store.engine import Store
from portico_gateway.store.tables import members, metadata, studios, users
from portico_shared.clock import JumpingClock
from portico_shared.ids import new_lineage, new_session_id

QUICK = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
PASSWORD = "a long and simple sentence"
PEER = "192.0.2.7"


@dataclass
class AuthWorld:
    store: Store
    clock: JumpingClock
    settings: Settings
    links: OneUseLinks
    rights: RightsService
    revocations: Revocations
    auth: AuthService
    people: PeopleService
    labels: LabelService
    cookies: StudioCookies
    edge: EdgeAnswers
    first_link: str | None
    workspace: int = 1
    revoked: list[Revoke] = field(default_factory=list)

    @property
    def first_secret(self) -> str:
        assert self.first_link is not None
        return self.first_link.rpartition("/")[2]

    async def user(self, name: str, role: Role | None = None, *, admin: bool = False) -> Actor:
        """Somebody with PASSWORD, signed in, a member if `role` is given."""
        hashed = QUICK.hash(PASSWORD)
        async with self.store.begin() as connection:
            user = await accounts.create(
                connection, user_name=name, email=f"{name}@example.org", created=self.clock.now(), admin=admin
            )
            await connection.execute(users.update().where(users.c.id == user.id).values(password_hash=hashed))
        if role is not None:
            await self.join(user, role)
        cookie = await self.sign_in(name)
        actor = await self.auth.actor_from_cookie(cookie, PEER)
        assert actor is not None
        return actor

    async def join(self, user: User, role: Role, workspace: int | None = None) -> None:
        row = {"workspace_id": workspace or self.workspace, "user_id": user.id, "role": int(role), "since": 0.0}
        async with self.store.begin() as connection:
            await connection.execute(members.insert().values(**row))

    async def sign_in(self, name: str, password: str = PASSWORD, peer: str = PEER) -> str:
        return await self.auth.sign_in(name, password, peer=peer, agent="a browser")

    async def token(self, actor: Actor, name: str = "mine", days: int | None = None) -> str:
        async with self.store.begin() as connection:
            return await tokens.make(connection, actor.user.id, name, self.clock.now(), days)

    async def disable(self, user: User) -> None:
        async with self.store.begin() as connection:
            await connection.execute(users.update().where(users.c.id == user.id).values(disabled=True))

    async def studio(self, creator: User, *, private: bool = False, allowed: tuple[int, ...] = ()) -> str:
        """A row, enough for rights to hang on."""
        session_id = new_session_id()
        async with self.store.begin() as connection:
            await connection.execute(
                studios.insert().values(
                    session_id=session_id,
                    workspace_id=self.workspace,
                    creator_id=creator.id,
                    name=session_id,
                    template="portico/jupyterlab:4.6",
                    compute_env_id="memory",
                    configuration={},
                    is_private=private,
                    allowed_user_ids=list(allowed),
                    lineage=new_lineage(),
                    status="stopped",
                    status_at=0.0,
                    created=0.0,
                    updated=0.0,
                )
            )
        return session_id

    async def everything_stored(self) -> str:
        """Every value of every table, as text."""
        found = []
        async with self.store.connect() as connection:
            for table in metadata.sorted_tables:
                rows = (await connection.execute(sa.select(table))).all()
                found += [str(value) for row in rows for value in row]
        return "\n".join(found)


@contextlib.asynccontextmanager
async def auth_world(folder: Path, *, token: str = "", sharing: Sharing | None = None) -> AsyncIterator[AuthWorld]:
    clock, database = JumpingClock(), os.environ.get("PORTICO_TEST_DATABASE", "")
    settings = Settings(data=folder, database=database, bootstrap_token=Secret(token))
    async with Store(settings.database_url) as store:
        if database and not (folder / "emptied").exists():
            names = ", ".join(metadata.tables)
            async with store.begin() as connection:
                await connection.execute(sa.text(f"TRUNCATE {names} RESTART IDENTITY CASCADE"))
            (folder / "emptied").touch()
        links, revocations, rights = (
            OneUseLinks(clock, settings.base_url),
            Revocations(clock),
            RightsService(store, sharing),
        )
        first_link = await bootstrap(store, clock, links, token)
        auth = AuthService(
            store,
            clock,
            settings,
            rights=rights,
            revocations=revocations,
            links=links,
            passwords=Passwords(QUICK),
        )
        cookies = StudioCookies(await signing_key(store, clock, "studio-cookies"), clock)
        world = AuthWorld(
            store=store,
            clock=clock,
            settings=settings,
            links=links,
            rights=rights,
            revocations=revocations,
            auth=auth,
            people=PeopleService(store, clock, rights, revocations, links),
            labels=LabelService(store, clock, rights),
            cookies=cookies,
            edge=EdgeAnswers(auth, rights, cookies, revocations, clock),
            first_link=first_link,
        )
        revocations.listen(world.revoked.append)
        try:
            yield world
        finally:
            auth.close()
