"""Signed grants for stores that the gateway serves itself.

A grant is a path with a query: `e` expiry (epoch seconds), for PUT also `n` size and `c` CRC-32C, and `s`, an
HMAC-SHA256 over method, key, size, checksum and expiry, base64url. Whoever alters any of them has no signature.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlencode

from portico_gateway.errors import Forbidden
from portico_gateway.objects.object_store import GRANT_SECONDS, checked_key
from portico_shared.clock import Clock

Method = Literal["PUT", "GET"]


@dataclass(frozen=True, slots=True)
class ObjectGrant:
    """One permitted request."""

    method: Method
    key: str
    size: int = 0
    crc32c: str = ""


class Grants:
    """Makes and checks grants. `key`: at least 32 secret bytes that only this Portico has."""

    def __init__(self, key: bytes, clock: Clock) -> None:
        if len(key) < 32:
            raise ValueError("the key of grants has at least 32 bytes")
        self._key = key
        self._clock = clock

    def query(self, grant: ObjectGrant) -> str:
        """The query string that permits exactly this for GRANT_SECONDS."""
        expires = int(self._clock.now()) + GRANT_SECONDS
        fields = {"e": str(expires), "s": self._signature(grant, expires)}
        if grant.method == "PUT":
            fields |= {"n": str(grant.size), "c": grant.crc32c}
        return urlencode(fields)

    def check(self, method: str, key: str, query: Mapping[str, str]) -> ObjectGrant:
        """What the request may do. Raises Forbidden unless every part of it is as it was signed."""
        checked_key(key)
        if method not in ("PUT", "GET"):
            raise Forbidden("an object is put or read, nothing else")
        try:
            expires = int(query["e"])
            size = int(query["n"]) if method == "PUT" else 0
            crc32c = query["c"] if method == "PUT" else ""
            signature = query["s"]
        except (KeyError, ValueError):
            raise Forbidden("this request is not signed: ask for a grant") from None
        grant = ObjectGrant("PUT" if method == "PUT" else "GET", key, size, crc32c)
        if not hmac.compare_digest(signature.encode(), self._signature(grant, expires).encode()):
            raise Forbidden("the signature does not fit this request: ask for a new grant")
        if self._clock.now() >= expires:
            raise Forbidden("this grant has expired: ask for a new one")
        return grant

    def _signature(self, grant: ObjectGrant, expires: int) -> str:
        text = f"portico-object-v1\n{grant.method}\n{grant.key}\n{grant.size}\n{grant.crc32c}\n{expires}"
        raw = hmac.new(self._key, text.encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
