"""Objects in memory: for tests, and for trying things out. `send` plays the store's own HTTP door."""

import secrets
from collections.abc import AsyncIterator
from urllib.parse import parse_qsl

from portico_gateway.errors import PorticoError
from portico_gateway.objects.checksums import crc32c_base64
from portico_gateway.objects.grants import Grants, ObjectGrant
from portico_gateway.objects.object_store import Presigned, StoredObject, checked_key, checked_put
from portico_shared.checkpoint.digest import name_of
from portico_shared.clock import Clock


class MemoryObjects:
    """An ObjectStore whose objects end with the process."""

    def __init__(self, clock: Clock) -> None:
        self._grants = Grants(secrets.token_bytes(32), clock)
        self.objects: dict[str, bytes] = {}

    async def presign_put(self, key: str, *, size: int, crc32c: str) -> Presigned:
        checked_put(key, size, crc32c)
        query = self._grants.query(ObjectGrant("PUT", key, size, crc32c))
        return Presigned("PUT", f"/memory/{key}?{query}", {"Content-Length": str(size)})

    async def presign_get(self, key: str) -> Presigned:
        return Presigned("GET", f"/memory/{checked_key(key)}?{self._grants.query(ObjectGrant('GET', key))}")

    async def size(self, key: str) -> int | None:
        found = self.objects.get(checked_key(key))
        return None if found is None else len(found)

    async def delete(self, key: str) -> None:
        self.objects.pop(checked_key(key), None)

    async def list_objects(self, prefix: str) -> AsyncIterator[StoredObject]:
        for key, content in list(self.objects.items()):
            if key.startswith(prefix):
                yield StoredObject(key, len(content))

    async def check(self) -> None:
        """Memory is always there."""

    def send(self, method: str, url: str, body: bytes = b"", span: tuple[int, int] | None = None) -> tuple[int, bytes]:
        """What a request to a presigned URL is answered: status and body. `span`: first and last byte wanted."""
        path, _, query = url.partition("?")
        key = path.removeprefix("/memory/")
        try:
            grant = self._grants.check(method, key, dict(parse_qsl(query)))
        except PorticoError as error:
            return error.status, error.message.encode()
        if method == "PUT":
            return self._put(grant, body)
        content = self.objects.get(key)
        if content is None:
            return 404, b"there is no such object"
        return (200, content) if span is None else (206, content[span[0] : span[1] + 1])

    def _put(self, grant: ObjectGrant, body: bytes) -> tuple[int, bytes]:
        if grant.key in self.objects:
            return 409, b"this object is there already"
        if len(body) != grant.size or crc32c_base64(body) != grant.crc32c:
            return 400, b"the content is not what the grant is for"
        if name_of(body) != grant.key.rpartition("/")[2]:
            return 400, b"the content does not match its name"
        self.objects[grant.key] = body
        return 200, b""
