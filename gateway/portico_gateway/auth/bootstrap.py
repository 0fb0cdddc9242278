"""The first start: an administrator without a password, a workspace, and a one-use link to come in."""

import re

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from portico_gateway.auth import accounts, tokens
from portico_gateway.auth.links import OneUseLinks
from portico_gateway.auth.secrets_text import digest
from portico_gateway.auth.values import Role
from portico_gateway.errors import BadRequest
from portico_gateway.store.engine import Store
from portico_gateway.store.tables import members, organisations, sign_ins, users, workspaces
from portico_gateway.store.tables import tokens as tokens_table
from portico_shared.clock import Clock

ADMINISTRATOR = "admin"
BOOTSTRAP = "bootstrap"
TOKEN = re.compile(r"[!-~]{20,256}")


async def bootstrap(store: Store, clock: Clock, links: OneUseLinks, token: str) -> str | None:
    """Make what a first start needs; on later ones nothing. Returns the sign-in link while nobody ever came in.

    `token` becomes the administrator's first personal access token, and a later one takes its place, as long as that
    administrator has neither a password nor a sign-in; afterwards it counts for nothing new.
    """
    if token and TOKEN.fullmatch(token) is None:
        raise BadRequest("PORTICO_BOOTSTRAP_TOKEN has 20 to 256 random characters, printable ones without blanks")
    now = clock.now()
    async with store.begin() as connection:
        admin_id = (await connection.execute(sa.select(sa.func.min(users.c.id)).where(users.c.is_admin))).scalar()
        if admin_id is None:
            admin_id = await _first_administrator(connection, now)
        if await _came_in(connection, admin_id):
            return None
        if token:
            known = await connection.execute(sa.select(tokens_table.c.id).where(tokens_table.c.hash == digest(token)))
            if known.first() is None:
                earlier = tokens_table.c.user_id == admin_id, tokens_table.c.name == BOOTSTRAP
                await connection.execute(tokens_table.delete().where(*earlier))
                await tokens.make(connection, admin_id, BOOTSTRAP, now, None, text=token)
        url, _ = await links.make(connection, admin_id, "bootstrap")
        return url


async def _came_in(connection: AsyncConnection, admin_id: int) -> bool:
    password = (await connection.execute(sa.select(users.c.password_hash).where(users.c.id == admin_id))).scalar()
    signed_in = (await connection.execute(sa.select(sign_ins.c.id).where(sign_ins.c.user_id == admin_id))).first()
    return password is not None or signed_in is not None


async def _first_administrator(connection: AsyncConnection, now: float) -> int:
    user = await accounts.create(
        connection, user_name=ADMINISTRATOR, email="admin@portico.localhost", created=now, admin=True
    )
    org = await connection.execute(organisations.insert().values(name="portico", created=now))
    assert org.inserted_primary_key is not None
    workspace = await connection.execute(
        workspaces.insert().values(org_id=org.inserted_primary_key[0], name="studios", full_name="My team", created=now)
    )
    assert workspace.inserted_primary_key is not None
    await connection.execute(
        members.insert().values(
            workspace_id=workspace.inserted_primary_key[0], user_id=user.id, role=int(Role.OWNER), since=now
        )
    )
    return user.id
