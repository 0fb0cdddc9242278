"""Workspaces and who is in them."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from portico_gateway.auth import accounts
from portico_gateway.auth.event_log import record
from portico_gateway.auth.links import OneUseLinks
from portico_gateway.auth.revocations import Revocations
from portico_gateway.auth.rights import RightsService
from portico_gateway.auth.values import Action, Actor, Invitation, Member, Role, User, Workspace
from portico_gateway.errors import BadRequest, Conflict, Forbidden, NotFound
from portico_gateway.store.engine import Store
from portico_gateway.store.tables import members, organisations, users, workspaces
from portico_shared.clock import Clock


class PeopleService:
    """Members and roles. Rights are checked inside; whoever loses some is revoked at once."""

    def __init__(
        self, store: Store, clock: Clock, rights: RightsService, revocations: Revocations, links: OneUseLinks
    ) -> None:
        self._store = store
        self._clock = clock
        self._rights = rights
        self._revocations = revocations
        self._links = links

    async def workspaces(self, actor: Actor) -> tuple[Workspace, ...]:
        query = (
            sa.select(workspaces, organisations.c.name.label("org_name"))
            .join(organisations, organisations.c.id == workspaces.c.org_id)
            .join(members, members.c.workspace_id == workspaces.c.id)
            .where(members.c.user_id == actor.user.id)
            .order_by(workspaces.c.id)
        )
        async with self._store.connect() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return tuple(
            Workspace(r["id"], r["org_id"], r["name"], r["full_name"] or r["name"], r["org_name"], r["description"])
            for r in rows
        )

    async def role(self, actor: Actor, workspace_id: int) -> Role | None:
        async with self._store.connect() as connection:
            return await _role(connection, workspace_id, actor.user.id)

    async def members(self, actor: Actor, workspace_id: int) -> tuple[Member, ...]:
        await self._rights.authorise(actor, Action.MEMBERS_READ, workspace_id)
        query = (
            sa.select(users, members.c.role, members.c.since)
            .join(members, members.c.user_id == users.c.id)
            .where(members.c.workspace_id == workspace_id)
            .order_by(members.c.role.desc(), users.c.user_name)
        )
        async with self._store.connect() as connection:
            rows = (await connection.execute(query)).all()
        return tuple(Member(accounts.to_user(r), Role(r.role), r.since) for r in rows)

    async def invite(self, actor: Actor, workspace_id: int, email: str, role: Role) -> Invitation:
        """Make somebody a member. A new account gets a one-use link; one that has a password needs none."""
        await self._rights.authorise(actor, Action.MEMBERS_WRITE, workspace_id)
        await self._may_give(actor, workspace_id, role)
        now = self._clock.now()
        async with self._store.begin() as connection:
            known = await accounts.by_login(connection, email) if "@" in email else None
            if known is None:
                name = await accounts.free_user_name(connection, email)
                user, needs_link = await accounts.create(connection, user_name=name, email=email, created=now), True
            else:
                user, needs_link = known[0], known[1] is None
            if await _role(connection, workspace_id, user.id) is not None and not needs_link:
                raise Conflict(f"{user.email} is a member already; change the role in the list")
            await _put(connection, workspace_id, user.id, role, now)
            await self._log(connection, actor, workspace_id, "member-invited", user, role)
            url, expires = ("", 0.0)
            if needs_link:
                url, expires = await self._links.make(connection, user.id, "invitation")
        return Invitation(user, url, expires)

    async def set_role(self, actor: Actor, workspace_id: int, user_id: int, role: Role) -> None:
        await self._rights.authorise(actor, Action.MEMBERS_WRITE, workspace_id)
        await self._may_give(actor, workspace_id, role)
        async with self._store.begin() as connection:
            user = await self._existing(connection, actor, workspace_id, user_id)
            if role is not Role.OWNER:
                await _keep_an_owner(connection, workspace_id, user_id)
            await _put(connection, workspace_id, user_id, role, self._clock.now())
            await self._log(connection, actor, workspace_id, "role-changed", user, role)
        self._revocations.revoke(user_id=user_id)

    async def remove_member(self, actor: Actor, workspace_id: int, user_id: int) -> None:
        if user_id != actor.user.id:  # anybody may leave
            await self._rights.authorise(actor, Action.MEMBERS_WRITE, workspace_id)
        async with self._store.begin() as connection:
            user = await self._existing(connection, actor, workspace_id, user_id)
            await _keep_an_owner(connection, workspace_id, user_id)
            await connection.execute(
                members.delete().where(members.c.workspace_id == workspace_id, members.c.user_id == user_id)
            )
            await self._log(connection, actor, workspace_id, "member-removed", user, None)
        self._revocations.revoke(user_id=user_id)

    async def _may_give(self, actor: Actor, workspace_id: int, role: Role) -> None:
        own = await self.role(actor, workspace_id)
        if own is None or role > own:
            raise Forbidden(f"you cannot give the role {role.label}: it is higher than your own")

    async def _existing(self, connection: AsyncConnection, actor: Actor, workspace_id: int, user_id: int) -> User:
        role = await _role(connection, workspace_id, user_id)
        user = await accounts.by_id(connection, user_id)
        if role is None or user is None:
            raise NotFound("there is no such member in this workspace")
        own = await _role(connection, workspace_id, actor.user.id)
        if own is None or role > own:
            raise Forbidden(f"{user.user_name} has a higher role than you")
        return user

    async def _log(
        self, connection: AsyncConnection, actor: Actor, workspace_id: int, kind: str, user: User, role: Role | None
    ) -> None:
        await record(
            connection,
            self._clock.now(),
            kind,
            user_id=actor.user.id,
            workspace_id=workspace_id,
            peer=actor.peer,
            member=user.id,
            role=role.label if role else None,
        )


async def _role(connection: AsyncConnection, workspace_id: int, user_id: int) -> Role | None:
    found = (
        await connection.execute(
            sa.select(members.c.role).where(members.c.workspace_id == workspace_id, members.c.user_id == user_id)
        )
    ).scalar()
    return Role(found) if found is not None else None


async def _put(connection: AsyncConnection, workspace_id: int, user_id: int, role: Role, now: float) -> None:
    changed = await connection.execute(
        members.update()
        .where(members.c.workspace_id == workspace_id, members.c.user_id == user_id)
        .values(role=int(role))
    )
    if changed.rowcount == 0:
        await connection.execute(
            members.insert().values(workspace_id=workspace_id, user_id=user_id, role=int(role), since=now)
        )


async def _keep_an_owner(connection: AsyncConnection, workspace_id: int, user_id: int) -> None:
    owners = set(
        (
            await connection.execute(
                sa.select(members.c.user_id).where(
                    members.c.workspace_id == workspace_id, members.c.role == int(Role.OWNER)
                )
            )
        ).scalars()
    )
    if owners == {user_id}:
        raise BadRequest("a workspace keeps at least one owner: make somebody else one first")
