"""`authorise` for every door, with what it needs read from the store."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from portico_gateway.auth import accounts
from portico_gateway.auth.permissions import NO_STUDIO, Standing, permitted, require
from portico_gateway.auth.values import Action, Actor, Role, StudioRights, User
from portico_gateway.errors import Forbidden, NotFound
from portico_gateway.store.engine import Store
from portico_gateway.store.tables import members, studios, users, workspaces
from portico_gateway.studios.needs import Policy

BATCH = 500
"""Ids asked for in one statement: databases bound how many values one may carry."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """Whether this machine keeps people apart well enough that more than one may open studios."""

    shared: bool = True
    note: str = ""


class RightsService:
    """The one place that decides. `sharing` is settled at start, from what the compute environment can do."""

    def __init__(self, store: Store, sharing: Sharing | None = None) -> None:
        self._store = store
        self.sharing = sharing or Sharing()

    async def authorise(self, actor: Actor, action: Action, target: StudioRights | int) -> None:
        """For a studio, or a workspace's id. Raises NotFound for what the actor may not even see, else Forbidden."""
        if action is Action.INSTANCE_ADMIN:
            if not actor.user.is_admin or actor.user.disabled:
                raise Forbidden("only an administrator of this Portico may do that")
            return
        studio = target if isinstance(target, StudioRights) else None
        workspace_id = target.workspace_id if isinstance(target, StudioRights) else target
        async with self._store.connect() as connection:
            standing = await self._standing(connection, actor.user, workspace_id)
        require(standing, action, studio)

    async def permitted(self, actor: Actor, studios: Sequence[StudioRights]) -> list[frozenset[Action]]:
        """What the actor may do with each; empty for one they may not even see."""
        standings: dict[int, Standing] = {}
        async with self._store.connect() as connection:
            for workspace_id in {studio.workspace_id for studio in studios}:
                standings[workspace_id] = await self._standing(connection, actor.user, workspace_id)
        return [permitted(standings[studio.workspace_id], studio) for studio in studios]

    async def studio(self, session_id: str) -> StudioRights:
        """What rights on this studio hang on. Raises NotFound."""
        async with self._store.connect() as connection:
            row = (await connection.execute(sa.select(studios).where(studios.c.session_id == session_id))).first()
        if row is None:
            raise NotFound(NO_STUDIO)
        allowed = frozenset(row.allowed_user_ids)
        return StudioRights(session_id, row.workspace_id, row.creator_id, row.is_private, allowed)

    async def policy(self, workspace_id: int) -> Policy:
        async with self._store.connect() as connection:
            row = (await connection.execute(sa.select(workspaces).where(workspaces.c.id == workspace_id))).first()
        if row is None:
            raise NotFound("no such workspace")
        return Policy(row.lifespan_hours, row.private_by_default)

    async def users(self, ids: Iterable[int]) -> dict[int, User]:
        wanted, found = sorted(set(ids)), dict[int, User]()
        async with self._store.connect() as connection:
            for start in range(0, len(wanted), BATCH):
                query = sa.select(users).where(users.c.id.in_(wanted[start : start + BATCH]))
                found.update({row.id: accounts.to_user(row) for row in await connection.execute(query)})
        return found

    async def _standing(self, connection: AsyncConnection, user: User, workspace_id: int) -> Standing:
        query = (
            sa.select(members.c.role, workspaces.c.launch_may_start)
            .join(workspaces, workspaces.c.id == members.c.workspace_id)
            .where(members.c.workspace_id == workspace_id, members.c.user_id == user.id)
        )
        row = (await connection.execute(query)).first()
        may_open = self.sharing.shared or user.id == await _founder(connection)
        return Standing(
            user=user,
            role=Role(row.role) if row is not None else None,
            launch_may_start=row.launch_may_start if row is not None else False,
            may_open=may_open,
            not_open_because=self.sharing.note
            or "this machine cannot keep people's studios apart: only the account that started Portico opens them",
        )


async def _founder(connection: AsyncConnection) -> int | None:
    """The account that started Portico: its first administrator."""
    found = (await connection.execute(sa.select(sa.func.min(users.c.id)).where(users.c.is_admin))).scalar()
    return int(found) if found is not None else None
