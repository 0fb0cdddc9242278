"""The promise of an object store, and how keys are spelt."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

from portico_gateway.errors import BadRequest
from portico_shared.ids import LINEAGE

GRANT_SECONDS = 900
"""How long a grant counts: long enough for 64 MiB over a slow line, short enough to be of no use later."""
MAX_OBJECT = 80 * 1024 * 1024
"""Bytes of one object: a pack of 64 MiB with its table, and room."""
_KEY = re.compile(rf"{LINEAGE.pattern}/(packs|heads)/[0-9a-f]{{64}}")
_CRC = re.compile(r"[A-Za-z0-9+/]{6}==")

Kind = Literal["pack", "head"]


def object_key(lineage: str, kind: Kind, name: str) -> str:
    """`<lineage>/packs/<hash>` or `<lineage>/heads/<hash>`. Raises BadRequest for anything but 64 hex digits."""
    return checked_key(f"{lineage}/{kind}s/{name}")


def checked_key(key: str) -> str:
    if _KEY.fullmatch(key) is None:
        raise BadRequest(f"'{key[:120]}' is not the key of an object: <lineage>/packs|heads/<64 hex digits>")
    return key


def checked_put(key: str, size: int, crc32c: str) -> None:
    """Raises BadRequest for what no grant may be given for."""
    checked_key(key)
    if not 0 < size <= MAX_OBJECT:
        raise BadRequest(f"an object has 1 to {MAX_OBJECT} bytes, not {size}")
    if _CRC.fullmatch(crc32c) is None:
        raise BadRequest("crc32c is the base64 of 4 bytes, like 'AAAAAA=='")


@dataclass(frozen=True, slots=True)
class Presigned:
    """One request that may be made without further credentials, exactly like this."""

    method: Literal["PUT", "GET"]
    url: str
    """A path when it is on the gateway itself."""
    headers: dict[str, str] = field(default_factory=dict)
    expires_in: float = GRANT_SECONDS


@dataclass(frozen=True, slots=True)
class StoredObject:
    key: str
    size: int


class ObjectStore(Protocol):
    """Keeps objects; an object, once there, never changes.

    Every method may be repeated and called at the same time. Keys are those of `object_key`; others raise
    `errors.BadRequest`. When the store is away or full, methods raise `errors.Unavailable` with its words: trying again
    later may help, nothing else is retried inside.
    """

    async def presign_put(self, key: str, *, size: int, crc32c: str) -> Presigned:
        """A request that puts an object of exactly `size` bytes with this CRC-32C (base64 of four big-endian bytes).

        The store refuses it, changing nothing, when the content has another length or checksum, when the key holds an
        object already (409 or 412), after `expires_in` seconds, and when anything in the request was altered.
        An object is seen by `size` only when it is complete and durable.
        """
        ...

    async def presign_get(self, key: str) -> Presigned:
        """A request that reads the object; it may carry a `Range` of bytes. 404 when there is none."""
        ...

    async def size(self, key: str) -> int | None:
        """Bytes of the object; None when there is none."""
        ...

    async def delete(self, key: str) -> None:
        """The object is gone; one that never was is fine."""
        ...

    def list_objects(self, prefix: str) -> AsyncIterator[StoredObject]:
        """Objects whose key starts with `prefix` (`<lineage>/`), in no order. Those put meanwhile may be missing."""
        ...

    async def check(self) -> None:
        """Raises `errors.Unavailable` with what to do when objects could not be put now."""
        ...
