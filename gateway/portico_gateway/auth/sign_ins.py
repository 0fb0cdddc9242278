"""Browser sign-ins: a random secret in a cookie, its hash in the store."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from portico_gateway.auth.secrets_text import MAX_SECRET, digest, new_secret
from portico_gateway.auth.values import SignIn
from portico_gateway.errors import NotFound
from portico_gateway.store.tables import sign_ins

USED_EVERY = 60.0


async def make(connection: AsyncConnection, user_id: int, now: float, hours: int, peer: str, agent: str) -> str:
    """The cookie's value of a new sign-in. Ones that are over are cleared away."""
    secret = new_secret()
    await connection.execute(sign_ins.delete().where(sign_ins.c.expires <= now))
    await connection.execute(
        sign_ins.insert().values(
            hash=digest(secret),
            user_id=user_id,
            created=now,
            last_used=now,
            expires=now + hours * 3600,
            peer=peer[:64],
            agent=agent[:256],
        )
    )
    return secret


async def find(connection: AsyncConnection, cookie: str, now: float) -> tuple[int, int, bool] | None:
    """(sign-in id, user id, whether 'last used' is due) for a living sign-in."""
    if len(cookie) > MAX_SECRET:
        return None
    query = sa.select(sign_ins).where(sign_ins.c.hash == digest(cookie), sign_ins.c.expires > now)
    row = (await connection.execute(query)).first()
    return (row.id, row.user_id, now - row.last_used > USED_EVERY) if row is not None else None


async def lives(connection: AsyncConnection, sign_in_id: int, user_id: int, now: float) -> bool:
    query = sa.select(sign_ins.c.id).where(
        sign_ins.c.id == sign_in_id, sign_ins.c.user_id == user_id, sign_ins.c.expires > now
    )
    return (await connection.execute(query)).first() is not None


async def touch(connection: AsyncConnection, sign_in_id: int, now: float) -> None:
    await connection.execute(sign_ins.update().where(sign_ins.c.id == sign_in_id).values(last_used=now))


async def of_user(connection: AsyncConnection, user_id: int, current: str, now: float) -> tuple[SignIn, ...]:
    query = (
        sa.select(sign_ins)
        .where(sign_ins.c.user_id == user_id, sign_ins.c.expires > now)
        .order_by(sign_ins.c.last_used.desc())
    )
    rows = (await connection.execute(query)).all()
    return tuple(SignIn(r.id, r.created, r.last_used, r.expires, r.peer, r.agent, f"s{r.id}" == current) for r in rows)


async def end(connection: AsyncConnection, sign_in_id: int, user_id: int) -> None:
    gone = await connection.execute(sign_ins.delete().where(sign_ins.c.id == sign_in_id, sign_ins.c.user_id == user_id))
    if gone.rowcount == 0:
        raise NotFound("there is no such sign-in")


async def end_others(connection: AsyncConnection, user_id: int, keep: str) -> list[int]:
    """End all sign-ins of a user but the one named 's<id>'. Returns the ended ones' ids."""
    ids = [
        i
        for i in (await connection.execute(sa.select(sign_ins.c.id).where(sign_ins.c.user_id == user_id))).scalars()
        if f"s{i}" != keep
    ]
    await connection.execute(sign_ins.delete().where(sign_ins.c.id.in_(ids)))
    return ids
