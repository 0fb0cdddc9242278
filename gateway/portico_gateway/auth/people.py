"""Workspaces and who is in them."""

import re

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from portico_gateway.auth import accounts, sign_ins
from portico_gateway.auth.event_log import record
from portico_gateway.auth.links import OneUseLinks
from portico_gateway.auth.permissions import LEAST
from portico_gateway.auth.revocations import Revocations
from portico_gateway.auth.rights import RightsService
from portico_gateway.auth.values import (
    Action,
    Actor,
    Invitation,
    Member,
    PolicyChange,
    Role,
    User,
    Workspace,
    WorkspacePolicy,
)
from portico_gateway.errors import BadRequest, Conflict, Forbidden, NotFound
from portico_gateway.store.engine import Store
from portico_gateway.store.tables import members, organisations, studios, users, workspaces
from portico_shared.clock import Clock

WORKSPACE_NAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9._-]{0,78}[a-zA-Z0-9])?")
LONGEST_LIFESPAN = 120


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
        """Make somebody a member. Who has no password yet gets a one-use link, the same again when asked again.

        A link is a way to become somebody: accounts and links are made for an administrator of this Portico alone;
        others add people who have an account.
        """
        await self._rights.authorise(actor, Action.MEMBERS_WRITE, workspace_id)
        now = self._clock.now()
        async with self._store.begin() as connection:
            await _may_give(connection, actor, workspace_id, role)
            known = await accounts.by_login(connection, email) if "@" in email else None
            if known is None:
                if not actor.user.is_admin:
                    raise Forbidden(f"{email[:80]!a} has no account here: ask an administrator of this Portico")
                name = await accounts.free_user_name(connection, email)
                known = await accounts.create(connection, user_name=name, email=email, created=now), None
            user, password = known
            needs_link = password is None and actor.user.is_admin
            if await _role(connection, workspace_id, user.id) is None:
                await _put(connection, workspace_id, user.id, role, now)
                await self._log(connection, actor, workspace_id, "member-invited", user, role)
            elif not needs_link:
                raise Conflict(f"{user.email} is a member already; change the role in the list")
            url, expires = await self._links.make(connection, user.id, "invitation") if needs_link else ("", 0.0)
        return Invitation(user, url, expires)

    async def set_role(self, actor: Actor, workspace_id: int, user_id: int, role: Role) -> None:
        await self._rights.authorise(actor, Action.MEMBERS_WRITE, workspace_id)
        async with self._store.begin() as connection:
            await _may_give(connection, actor, workspace_id, role)
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
            await _forget_names(connection, workspace_id, user_id)
            await self._log(connection, actor, workspace_id, "member-removed", user, None)
        self._revocations.revoke(user_id=user_id)

    async def policy(self, actor: Actor, workspace_id: int) -> WorkspacePolicy:
        await self._rights.authorise(actor, Action.SETTINGS_READ, workspace_id)
        async with self._store.connect() as connection:
            row = (await connection.execute(sa.select(workspaces).where(workspaces.c.id == workspace_id))).one()
        return WorkspacePolicy(row.lifespan_hours, row.private_by_default, row.launch_may_start)

    async def change_policy(self, actor: Actor, workspace_id: int, change: PolicyChange) -> None:
        await self._rights.authorise(actor, Action.SETTINGS_WRITE, workspace_id)
        if change.lifespan_hours is not None and not 0 <= change.lifespan_hours <= LONGEST_LIFESPAN:
            raise BadRequest(f"a lifespan is 1 to {LONGEST_LIFESPAN} hours, or 0 for 'until stopped'")
        given = {
            name: value
            for name in ("lifespan_hours", "private_by_default", "launch_may_start")
            if (value := getattr(change, name)) is not None
        }
        if change.free_lifespan:
            given["lifespan_hours"] = None
        if not given:
            return
        async with self._store.begin() as connection:
            await connection.execute(workspaces.update().where(workspaces.c.id == workspace_id).values(**given))
            await record(
                connection,
                self._clock.now(),
                "settings-changed",
                user_id=actor.user.id,
                workspace_id=workspace_id,
                peer=actor.peer,
                **given,
            )

    async def add_workspace(self, actor: Actor, name: str, full_name: str = "", description: str = "") -> Workspace:
        """A workspace in the first organisation; whoever adds it is its owner. For administrators of this Portico."""
        await self._rights.authorise(actor, Action.INSTANCE_ADMIN, 0)
        if WORKSPACE_NAME.fullmatch(name) is None:
            raise BadRequest("a workspace's name has 1 to 80 of a-z, A-Z, 0-9, '.', '_' and '-'")
        now, full_name, description = self._clock.now(), full_name.strip()[:160], description.strip()[:1024]
        async with self._store.begin() as connection:
            org = (await connection.execute(sa.select(organisations).order_by(organisations.c.id))).first()
            assert org is not None, "the first start makes one"
            same = sa.select(workspaces.c.id).where(workspaces.c.org_id == org.id, workspaces.c.name == name)
            if (await connection.execute(same)).first() is not None:
                raise Conflict(f"there is a workspace named '{name}' already")
            made = await connection.execute(
                workspaces.insert().values(
                    org_id=org.id, name=name, full_name=full_name, description=description, created=now
                )
            )
            assert made.inserted_primary_key is not None
            number = int(made.inserted_primary_key[0])
            await _put(connection, number, actor.user.id, Role.OWNER, now)
            await self._log(connection, actor, number, "workspace-added", actor.user, Role.OWNER)
        return Workspace(number, org.id, name, full_name or name, org.name, description)

    async def set_disabled(self, actor: Actor, user_id: int, disabled: bool) -> None:
        """Shut an account out of everything at once, or let it in again. For administrators of this Portico."""
        await self._rights.authorise(actor, Action.INSTANCE_ADMIN, 0)
        if disabled and user_id == actor.user.id:
            raise BadRequest("you cannot disable your own account: ask another administrator")
        async with self._store.begin() as connection:
            user = await self._account(connection, user_id)
            await connection.execute(users.update().where(users.c.id == user_id).values(disabled=disabled))
            if disabled:
                await sign_ins.end_others(connection, user_id, keep="")
            kind = "account-disabled" if disabled else "account-enabled"
            await record(
                connection, self._clock.now(), kind, user_id=actor.user.id, peer=actor.peer, account=user.user_name
            )
        if disabled:
            self._revocations.revoke(user_id=user_id)

    async def reset_link(self, actor: Actor, user_id: int) -> Invitation:
        """A one-use link with which somebody who forgot it sets a new password. For administrators of this Portico."""
        await self._rights.authorise(actor, Action.INSTANCE_ADMIN, 0)
        async with self._store.begin() as connection:
            user = await self._account(connection, user_id)
            url, expires = await self._links.make(connection, user_id, "reset")
            now, name = self._clock.now(), user.user_name
            await record(connection, now, "reset-link-made", user_id=actor.user.id, peer=actor.peer, account=name)
        return Invitation(user, url, expires)

    async def _account(self, connection: AsyncConnection, user_id: int) -> User:
        user = await accounts.by_id(connection, user_id)
        if user is None:
            raise NotFound("there is no such account")
        return user

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


async def _may_give(connection: AsyncConnection, actor: Actor, workspace_id: int, role: Role) -> None:
    """Asked again inside the transaction: who is losing a right this moment must not give it away."""
    own = await _role(connection, workspace_id, actor.user.id)
    if own is None or own < LEAST[Action.MEMBERS_WRITE] or role > own:
        raise Forbidden(f"you cannot give the role {role.label}: it is higher than your own")


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


async def _forget_names(connection: AsyncConnection, workspace_id: int, user_id: int) -> None:
    """Private studios that name this person do so no more: coming back must not bring old rights back."""
    query = sa.select(studios.c.session_id, studios.c.allowed_user_ids).where(studios.c.workspace_id == workspace_id)
    for row in (await connection.execute(query)).all():
        if user_id in row.allowed_user_ids:
            left = [each for each in row.allowed_user_ids if each != user_id]
            await connection.execute(
                studios.update().where(studios.c.session_id == row.session_id).values(allowed_user_ids=left)
            )


async def _keep_an_owner(connection: AsyncConnection, workspace_id: int, user_id: int) -> None:
    owners = set(
        (
            await connection.execute(
                sa.select(members.c.user_id)
                .where(members.c.workspace_id == workspace_id, members.c.role == int(Role.OWNER))
                .with_for_update()
            )
        ).scalars()
    )
    if owners == {user_id}:
        raise BadRequest("a workspace keeps at least one owner: make somebody else one first")
