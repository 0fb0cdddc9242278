"""Who did what, from where, when: one row an event, never changed."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from portico_gateway.store.tables import events


async def record(
    connection: AsyncConnection,
    at: float,
    kind: str,
    *,
    user_id: int | None = None,
    workspace_id: int | None = None,
    session_id: str | None = None,
    peer: str = "",
    **detail: Any,
) -> None:
    """Add an event in the caller's transaction, so that what happened and its record stand or fall together."""
    await connection.execute(
        events.insert().values(
            at=at,
            kind=kind,
            user_id=user_id,
            workspace_id=workspace_id,
            session_id=session_id,
            peer=peer[:64],
            detail=detail,
        )
    )
