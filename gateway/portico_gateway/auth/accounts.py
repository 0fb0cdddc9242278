"""Accounts: rows of people, and the grammar of their names."""

import re

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from portico_gateway.auth.secrets_text import is_text
from portico_gateway.auth.values import User
from portico_gateway.errors import BadRequest
from portico_gateway.store.tables import users

USER_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f]{1,64}@[^@\s\x00-\x1f\x7f]{1,189}")


def row_id(text: str) -> int | None:
    """A row's id that came as text; None = it cannot be one."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def to_user(row: sa.Row[tuple[object, ...]]) -> User:
    m = row._mapping
    return User(
        id=m["id"],
        user_name=m["user_name"],
        email=m["email"],
        display_name=m["display_name"],
        is_admin=m["is_admin"],
        disabled=m["disabled"],
    )


async def by_id(connection: AsyncConnection, user_id: int) -> User | None:
    row = (await connection.execute(sa.select(users).where(users.c.id == user_id))).first()
    return to_user(row) if row is not None else None


async def by_login(connection: AsyncConnection, login: str) -> tuple[User, str | None] | None:
    """The account with this user name or e-mail, and its password hash."""
    wanted = login.strip().casefold()
    if not is_text(wanted):
        return None
    row = (
        await connection.execute(sa.select(users).where(sa.or_(users.c.user_name == wanted, users.c.email == wanted)))
    ).first()
    return (to_user(row), row._mapping["password_hash"]) if row is not None else None


async def create(
    connection: AsyncConnection,
    *,
    user_name: str,
    email: str,
    created: float,
    display_name: str = "",
    admin: bool = False,
) -> User:
    """A new account without a password. Raises BadRequest for a name or address that is none."""
    email = email.strip().casefold()
    if USER_NAME.fullmatch(user_name) is None:
        raise BadRequest(
            "a user name has 1 to 64 of a-z, 0-9, '.', '_' and '-', and begins and ends with a letter or digit"
        )
    if EMAIL.fullmatch(email) is None or not is_text(email + display_name):
        raise BadRequest(f"{email[:80]!a} is not an e-mail address")
    result = await connection.execute(
        users.insert().values(
            user_name=user_name, email=email, display_name=display_name[:128], is_admin=admin, created=created
        )
    )
    assert result.inserted_primary_key is not None
    return User(int(result.inserted_primary_key[0]), user_name, email, display_name[:128], admin)


async def free_user_name(connection: AsyncConnection, email: str) -> str:
    """A user name made from an address, not taken yet."""
    base = re.sub(r"[^a-z0-9._-]+", "-", email.partition("@")[0].casefold()).strip("._-")[:40] or "user"
    taken = set(
        (await connection.execute(sa.select(users.c.user_name).where(users.c.user_name.startswith(base)))).scalars()
    )
    number, name = 1, base
    while name in taken:
        number += 1
        name = f"{base}{number}"
    return name
