"""Signing keys of this instance, made at first use and kept in the store."""

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from portico_gateway.store.engine import Store
from portico_gateway.store.tables import keys
from portico_shared.clock import Clock


async def signing_key(store: Store, clock: Clock, name: str) -> Ed25519PrivateKey:
    """The Ed25519 key of that name; a different key for each use."""
    async with store.begin() as connection:
        found = (await connection.execute(sa.select(keys.c.secret).where(keys.c.name == name))).scalar()
        if found is None:
            found = Ed25519PrivateKey.generate().private_bytes_raw()
            await connection.execute(keys.insert().values(name=name, secret=found, created=clock.now()))
    return Ed25519PrivateKey.from_private_bytes(found)
