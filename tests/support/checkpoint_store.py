"""The gateway as a checkpoint job sees it: the real catalogue and a real store, on loopback or without any network.

`DirectGateway` calls the catalogue itself; `serve` puts it behind HTTP with the agent API's paths, for child processes.
"""

import base64
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from aiohttp import web

from portico_agent.checkpoint.jobs import CaptureJob, RestoreJob
from portico_agent.errors import Refused, StorageRefused
from portico_gateway.errors import PorticoError
from portico_gateway.objects.local_folder import LocalFolder
from portico_gateway.objects.memory import MemoryObjects
from portico_gateway.studios.run_context import RunContext
from portico_shared.messages import (
    AGENT_API,
    ChallengeReply,
    CommitCall,
    CommitReply,
    ErrorReply,
    Grant,
    GrantsCall,
    ObjectName,
    ReadsCall,
    RestorePoint,
    TokenReply,
)
from support.catalogue_world import CatalogueWorld

SEED = base64.b64encode(bytes(32)).decode()


@dataclass
class DirectGateway:
    """Speaks to the catalogue and to objects in memory. `before_put` and `commits` let tests look in and interfere."""

    world: CatalogueWorld
    run: RunContext
    before_put: Callable[[Grant, bytes], Awaitable[None]] | None = None
    commits: list[CommitCall] = field(default_factory=list)
    puts: list[int] = field(default_factory=list)

    async def grants(self, objects: tuple[ObjectName, ...]) -> tuple[Grant, ...]:
        with _refusals():
            return (await self.world.catalogue.grants(self.run, GrantsCall(objects=objects))).grants

    async def reads(self, objects: tuple[ObjectName, ...]) -> tuple[Grant, ...]:
        with _refusals():
            return (await self.world.catalogue.reads(self.run, ReadsCall(objects=objects))).grants

    async def commit(self, call: CommitCall) -> CommitReply:
        with _refusals():
            reply = await self.world.catalogue.commit(self.run, call)
        self.commits.append(call)
        return reply

    async def put(self, grant: Grant, body: bytes) -> None:
        if self.before_put is not None:
            await self.before_put(grant, body)
        status, words = self._memory.send("PUT", grant.url, body)
        if status not in (200, 409):
            raise StorageRefused(status, words.decode())
        self.puts.append(len(body))

    async def get(self, grant: Grant, *, start: int = 0, length: int = 0) -> bytes:
        span = (start, start + length - 1) if length else None
        status, content = self._memory.send("GET", grant.url, span=span)
        if status not in (200, 206):
            raise StorageRefused(status, content.decode())
        return content

    @property
    def _memory(self) -> MemoryObjects:
        assert isinstance(self.world.objects, MemoryObjects)
        return self.world.objects


@contextlib.contextmanager
def _refusals():  # type: ignore[no-untyped-def]
    try:
        yield
    except PorticoError as error:
        raise Refused(error.status, error.message) from error


class Jobs:
    """Jobs for one run on one volume."""

    def __init__(self, run: RunContext, volume: Path, gateway: str = "http://nowhere") -> None:
        self._common = {
            "run": run.run_id,
            "gateway": gateway,
            "host": "portico.localhost",
            "seed": SEED,
            "root": "overlay",
            "lower": "fingerprint",
            "index": str(volume / "checkpoint.index"),
        }
        self._current = str(volume / "current")

    def capture(self, reason: str = "interval", **changes: object) -> CaptureJob:
        return msgspec.convert({**self._common, "source": self._current, "reason": reason, **changes}, CaptureJob)

    def restore(self, point: RestorePoint, **changes: object) -> RestoreJob:
        job = {**self._common, "target": self._current, **changes}
        return msgspec.convert({**job, "point": msgspec.to_builtins(point)}, RestoreJob)


@contextlib.asynccontextmanager
async def serve(
    world: CatalogueWorld, run: RunContext, on_request: Callable[[web.Request], None] | None = None
) -> AsyncIterator[str]:
    """The address of a gateway that takes every caller for this run. `on_request` hears of each before it is served."""

    def answer(call: Callable[[web.Request], Awaitable[msgspec.Struct]]):  # type: ignore[no-untyped-def]
        async def handler(request: web.Request) -> web.Response:
            try:
                status, reply = 200, await call(request)
            except PorticoError as error:
                status, reply = error.status, ErrorReply(message=error.message)
            return web.Response(status=status, body=msgspec.json.encode(reply))

        return handler

    async def challenge(_: web.Request) -> msgspec.Struct:
        return ChallengeReply(nonce=secrets.token_urlsafe(16))

    async def token(_: web.Request) -> msgspec.Struct:
        return TokenReply(token="any", expires_in=600.0)

    async def grants(request: web.Request) -> msgspec.Struct:
        call = msgspec.json.decode(await request.read(), type=GrantsCall)
        return await world.catalogue.grants(run, call)

    async def reads(request: web.Request) -> msgspec.Struct:
        return await world.catalogue.reads(run, msgspec.json.decode(await request.read(), type=ReadsCall))

    async def commit(request: web.Request) -> msgspec.Struct:
        return await world.catalogue.commit(run, msgspec.json.decode(await request.read(), type=CommitCall))

    @web.middleware
    async def heard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if on_request is not None:
            on_request(request)
        return await handler(request)

    app = web.Application(client_max_size=16 * 2**20, middlewares=[heard])
    app.add_routes(
        [
            web.get(f"{AGENT_API}/challenge", answer(challenge)),
            web.post(f"{AGENT_API}/token", answer(token)),
            web.post(f"{AGENT_API}/grants", answer(grants)),
            web.post(f"{AGENT_API}/reads", answer(reads)),
            web.post(f"{AGENT_API}/commit", answer(commit)),
            *(world.objects.routes() if isinstance(world.objects, LocalFolder) else ()),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
