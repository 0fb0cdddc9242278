"""Objects as files of one folder, behind signed URLs of the gateway's own.

    <folder>/<lineage>/packs/<blake3>    <folder>/<lineage>/heads/<blake3>    <folder>/incoming/<random>

A PUT is streamed into `incoming`, measured and hashed on the way, made durable, and only then linked to its name: a
name either is not there or holds exactly what it says.
"""

import asyncio
import contextlib
import errno
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

from aiohttp import web

from portico_gateway.errors import BadRequest, Conflict, NotFound, PorticoError, Unavailable
from portico_gateway.objects.grants import Grants, ObjectGrant
from portico_gateway.objects.incoming import Incoming, StoreFull, sync_folder
from portico_gateway.objects.object_store import Presigned, StoredObject, checked_key, checked_put
from portico_shared.clock import Clock
from portico_shared.messages import AGENT_API

PATH = f"{AGENT_API}/objects"
PIECE = 1024 * 1024
"""Bytes handed to a thread at once: hashing and writing one take about 1 ms."""
AT_ONCE = 8
"""PUTs written at the same time; more only make the disk seek."""
STALL = 60.0
"""Seconds in which the next piece of a body has to come."""
MIN_FREE = 64 * 1024 * 1024
"""Bytes that must be free for `check` to pass: one large pack."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class LocalFolder:
    """An ObjectStore in `folder`, which it makes. `key`: 32 secret bytes or more, the same after a restart."""

    def __init__(self, folder: Path, key: bytes, clock: Clock) -> None:
        self._folder = folder
        self._incoming = folder / "incoming"
        self._grants = Grants(key, clock)
        self._writers = asyncio.Semaphore(AT_ONCE)
        self._cleared = False

    # --- the promise ------------------------------------------------------------------------------------------------

    async def presign_put(self, key: str, *, size: int, crc32c: str) -> Presigned:
        checked_put(key, size, crc32c)
        query = self._grants.query(ObjectGrant("PUT", key, size, crc32c))
        return Presigned("PUT", f"{PATH}/{key}?{query}", {"Content-Length": str(size)})

    async def presign_get(self, key: str) -> Presigned:
        return Presigned("GET", f"{PATH}/{checked_key(key)}?{self._grants.query(ObjectGrant('GET', key))}")

    async def size(self, key: str) -> int | None:
        try:
            return (await asyncio.to_thread(self._file(key).stat)).st_size
        except FileNotFoundError:
            return None

    async def delete(self, key: str) -> None:
        with _faults():
            await asyncio.to_thread(self._file(key).unlink, missing_ok=True)

    async def list_objects(self, prefix: str) -> AsyncIterator[StoredObject]:
        for found in await asyncio.to_thread(self._scan, prefix):
            yield found

    async def check(self) -> None:
        with _faults():
            await asyncio.to_thread(self._check)

    # --- its door ---------------------------------------------------------------------------------------------------

    def routes(self) -> list[web.RouteDef]:
        """The signed URLs. The signature is the whole credential; nothing else is asked."""
        path = PATH + "/{lineage}/{kind}/{name}"
        return [web.put(path, _answered(self._put)), web.get(path, _answered(self._get), allow_head=False)]

    async def _put(self, request: web.Request) -> web.StreamResponse:
        grant = self._granted(request)
        if request.content_length is None:
            raise BadRequest("say the length: a PUT of an object has a Content-Length")
        if request.content_length != grant.size:
            raise BadRequest(f"this grant is for {grant.size} bytes, not {request.content_length}")
        if await self.size(grant.key) is not None:
            raise Conflict("this object is there already, and never changes")
        async with self._writers:
            with _faults():
                await self._take(request, grant)
        return web.Response(status=201)

    async def _take(self, request: web.Request, grant: ObjectGrant) -> None:
        incoming = await asyncio.to_thread(self._begin, grant)
        try:
            async for piece in _pieces(request):
                await asyncio.to_thread(incoming.write, piece)
            await asyncio.to_thread(incoming.finish, self._file(grant.key))
        finally:
            await asyncio.to_thread(incoming.discard)

    async def _get(self, request: web.Request) -> web.StreamResponse:
        file = self._file(self._granted(request).key)
        if not await asyncio.to_thread(file.is_file):
            raise NotFound("there is no such object")
        return web.FileResponse(file, chunk_size=PIECE, headers={"Content-Type": "application/octet-stream"})

    def _granted(self, request: web.Request) -> ObjectGrant:
        part = request.match_info
        key = f"{part['lineage']}/{part['kind']}/{part['name']}"
        return self._grants.check(request.method, key, request.query)

    # --- files ------------------------------------------------------------------------------------------------------

    def _file(self, key: str) -> Path:
        return self._folder / checked_key(key)

    def _begin(self, grant: ObjectGrant) -> Incoming:
        self._prepare()
        folder = self._file(grant.key).parent
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            for made in (folder, folder.parent, self._folder):
                sync_folder(made)
        return Incoming(self._incoming / secrets.token_hex(16), grant)

    def _prepare(self) -> None:
        """Make the folder; drop what an earlier process left half-written."""
        if self._cleared:
            return
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._incoming.mkdir(exist_ok=True, mode=0o700)
        for left in self._incoming.iterdir():
            left.unlink(missing_ok=True)
        self._cleared = True

    def _check(self) -> None:
        self._prepare()
        space = os.statvfs(self._folder)
        if space.f_bavail * space.f_frsize < MIN_FREE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))
        probe = self._incoming / secrets.token_hex(16)
        probe.write_bytes(b"probe")
        probe.unlink()

    def _scan(self, prefix: str) -> list[StoredObject]:
        lineage = prefix.partition("/")[0]
        found = []
        for kind in ("packs", "heads"):
            folder = self._folder / lineage / kind
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                for entry in os.scandir(folder):
                    key = f"{lineage}/{kind}/{entry.name}"
                    if key.startswith(prefix):
                        found.append(StoredObject(key, entry.stat().st_size))
        return found


async def _pieces(request: web.Request) -> AsyncIterator[bytes]:
    """The body in pieces of PIECE bytes, the last one shorter."""
    held = bytearray()
    while True:
        async with asyncio.timeout(STALL):
            data = await request.content.readany()
        held += data
        if not data:
            break
        if len(held) >= PIECE:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)


@contextlib.contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except StoreFull:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull() from error
        raise Unavailable(f"the checkpoint store does not work: {error}") from error


def _answered(handler: Handler) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except StoreFull as error:
            return web.json_response({"message": str(error)}, status=507)
        except PorticoError as error:
            return web.json_response({"message": error.message}, status=error.status)
        except TimeoutError:
            return web.json_response({"message": "the object's bytes did not come in time"}, status=408)

    return answer
