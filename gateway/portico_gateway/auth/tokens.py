"""Personal access tokens: made, listed, deleted, and the look-up behind every bearer."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from portico_gateway.auth.secrets_text import MAX_SECRET, digest, new_token
from portico_gateway.auth.values import Token
from portico_gateway.errors import BadRequest, Conflict, NotFound
from portico_gateway.store.tables import tokens

MOST = 50
USED_EVERY = 60.0
"""Seconds between two notes of 'last used'."""


async def make(
    connection: AsyncConnection, user_id: int, name: str, now: float, days: int | None, text: str | None = None
) -> str:
    """The token's text; only its hash is kept. Raises BadRequest, or Conflict when the name is taken."""
    name = name.strip()
    if not 1 <= len(name) <= 80:
        raise BadRequest("a token's name has 1 to 80 characters")
    if days is not None and not 1 <= days <= 3650:
        raise BadRequest("a token lives 1 to 3650 days, or until it is deleted")
    names = set((await connection.execute(sa.select(tokens.c.name).where(tokens.c.user_id == user_id))).scalars())
    if name in names:
        raise Conflict(f"you have a token named '{name}' already")
    if len(names) >= MOST:
        raise Conflict(f"you have {MOST} tokens; delete one first")
    secret = text or new_token()
    expires = now + days * 86400 if days is not None else None
    await connection.execute(
        tokens.insert().values(user_id=user_id, name=name, hash=digest(secret), created=now, expires=expires)
    )
    return secret


async def of_user(connection: AsyncConnection, user_id: int) -> tuple[Token, ...]:
    query = sa.select(tokens).where(tokens.c.user_id == user_id).order_by(tokens.c.created.desc(), tokens.c.id.desc())
    rows = (await connection.execute(query)).all()
    return tuple(Token(r.id, r.name, r.created, r.last_used, r.expires) for r in rows)


async def delete(connection: AsyncConnection, user_id: int, token_id: int) -> None:
    gone = await connection.execute(tokens.delete().where(tokens.c.id == token_id, tokens.c.user_id == user_id))
    if gone.rowcount == 0:
        raise NotFound("you have no such token")


async def find(connection: AsyncConnection, text: str, now: float) -> tuple[int, int, float | None, bool] | None:
    """(token id, user id, expiry, whether 'last used' is due) of a living token; None = it counts for nothing."""
    if len(text) > MAX_SECRET:
        return None
    row = (await connection.execute(sa.select(tokens).where(tokens.c.hash == digest(text)))).first()
    if row is None or (row.expires is not None and row.expires <= now):
        return None
    return row.id, row.user_id, row.expires, row.last_used is None or now - row.last_used > USED_EVERY


async def used(connection: AsyncConnection, token_id: int, now: float) -> None:
    await connection.execute(tokens.update().where(tokens.c.id == token_id).values(last_used=now))
