"""One-use links: the first administrator's, invitations, password resets."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from portico_gateway.auth.secrets_text import MAX_SECRET, digest, new_secret
from portico_gateway.errors import NotFound
from portico_gateway.store.tables import sign_in_links
from portico_shared.clock import Clock

LIFE = {"bootstrap": 24 * 3600.0, "invitation": 7 * 24 * 3600.0, "reset": 24 * 3600.0}
"""Seconds a link of each purpose lives."""

OVER = "this link was used already, has expired, or never was one: ask for a new one"


@dataclass(frozen=True, slots=True)
class FoundLink:
    user_id: int
    purpose: str
    expires: float


class OneUseLinks:
    """Makes and uses links below `<base_url>/link/`. Only the hash of the secret is stored."""

    def __init__(self, clock: Clock, base_url: str) -> None:
        self._clock = clock
        self._base_url = base_url

    async def make(self, connection: AsyncConnection, user_id: int, purpose: str) -> tuple[str, float]:
        """The URL and when it expires. An earlier unused link of the same purpose ends."""
        secret, now = new_secret(), self._clock.now()
        await connection.execute(
            sign_in_links.delete().where(
                sa.or_(
                    sign_in_links.c.expires <= now,
                    sa.and_(sign_in_links.c.user_id == user_id, sign_in_links.c.purpose == purpose),
                )
            )
        )
        expires = now + LIFE[purpose]
        await connection.execute(
            sign_in_links.insert().values(hash=digest(secret), user_id=user_id, purpose=purpose, expires=expires)
        )
        return f"{self._base_url}/link/{secret}", expires

    async def find(self, connection: AsyncConnection, secret: str) -> FoundLink:
        """Raises NotFound, with one sentence for unknown, used and expired."""
        row = None
        if len(secret) <= MAX_SECRET:
            row = (
                await connection.execute(
                    sa.select(sign_in_links).where(
                        sign_in_links.c.hash == digest(secret),
                        sign_in_links.c.used.is_(None),
                        sign_in_links.c.expires > self._clock.now(),
                    )
                )
            ).first()
        if row is None:
            raise NotFound(OVER)
        return FoundLink(row.user_id, row.purpose, row.expires)

    async def use(self, connection: AsyncConnection, secret: str) -> FoundLink:
        """Find it and use it up, in the caller's transaction."""
        found = await self.find(connection, secret)
        used = await connection.execute(
            sign_in_links.update()
            .where(sign_in_links.c.hash == digest(secret), sign_in_links.c.used.is_(None))
            .values(used=self._clock.now())
        )
        if used.rowcount != 1:  # two at once, on a database that lets them
            raise NotFound(OVER)
        return found
