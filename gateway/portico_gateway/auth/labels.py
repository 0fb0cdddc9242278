"""Labels: words of a workspace that its studios can carry."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from portico_gateway.auth.rights import RightsService
from portico_gateway.auth.values import Action, Actor, Label
from portico_gateway.errors import Conflict
from portico_gateway.store.engine import Store
from portico_gateway.store.tables import labels
from portico_shared.clock import Clock

MOST = 1000
"""Labels of one workspace."""


class LabelService:
    """Rights are checked inside."""

    def __init__(self, store: Store, clock: Clock, rights: RightsService) -> None:
        self._store = store
        self._clock = clock
        self._rights = rights

    async def of_workspace(self, actor: Actor, workspace_id: int, search: str = "") -> tuple[Label, ...]:
        """By name; `search` is a part of it."""
        await self._rights.authorise(actor, Action.STUDIO_READ, workspace_id)
        query = sa.select(labels).where(labels.c.workspace_id == workspace_id).order_by(labels.c.name, labels.c.value)
        if search:
            query = query.where(sa.func.lower(labels.c.name).contains(search.lower(), autoescape=True))
        async with self._store.connect() as connection:
            rows = (await connection.execute(query)).all()
        return tuple(Label(row.id, row.name, row.value, row.created) for row in rows)

    async def add(self, actor: Actor, workspace_id: int, name: str, value: str | None) -> Label:
        """Raises Conflict when the same label is there, or too many are."""
        await self._rights.authorise(actor, Action.STUDIO_WRITE, workspace_id)
        now = self._clock.now()
        async with self._store.begin() as connection:
            await _check(connection, workspace_id, name, value)
            made = await connection.execute(
                labels.insert().values(workspace_id=workspace_id, name=name, value=value, created=now)
            )
            assert made.inserted_primary_key is not None
            return Label(int(made.inserted_primary_key[0]), name, value, now)


async def _check(connection: AsyncConnection, workspace_id: int, name: str, value: str | None) -> None:
    here = labels.c.workspace_id == workspace_id
    same = sa.select(labels.c.id).where(here, labels.c.name == name, labels.c.value.is_not_distinct_from(value))
    if (await connection.execute(same)).first() is not None:
        raise Conflict(f"this workspace has the label '{name}' already")
    count = (await connection.execute(sa.select(sa.func.count()).select_from(labels).where(here))).scalar_one()
    if count >= MOST:
        raise Conflict(f"a workspace has at most {MOST} labels")
