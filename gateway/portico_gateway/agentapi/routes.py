"""The agent API as aiohttp routes. Bodies are bounded, decoded once, and answered for the credential's run alone."""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from aiohttp import hdrs, web

from portico_gateway.agentapi.credentials import RunCredentials
from portico_gateway.agentapi.limits import Buckets
from portico_gateway.errors import BadRequest, PorticoError, TooLarge, Unauthenticated
from portico_gateway.studios.lifecycle import Lifecycle
from portico_gateway.studios.logs import MAX_PIECE
from portico_gateway.studios.run_context import RunContext
from portico_shared.clock import Clock
from portico_shared.messages import (
    AGENT_API,
    CommitCall,
    ErrorReply,
    GrantsCall,
    IdentifyCall,
    LogReply,
    ReadsCall,
    TokenCall,
)

MAX_SMALL_BODY = 8 * 1024
MAX_BODY = 8 * 1024 * 1024
"""A commit names every pack: 5 GiB in packs of 16 MiB are 320 names of 130 bytes; this leaves room for terabytes."""
MAX_OBJECTS = 4096
"""Objects in one call for grants: each grant costs a signature, about 0.1 ms."""
MAX_PACKS = 50_000
BODY_TIMEOUT = 60.0
"""Seconds in which a body has to be here."""

Call = TypeVar("Call", bound=msgspec.Struct)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AgentApi:
    """Its parts; `routes()` is what it gives."""

    credentials: RunCredentials
    lifecycle: Lifecycle
    clock: Clock
    strangers: Buckets
    calls: Buckets

    @classmethod
    def make(cls, credentials: RunCredentials, lifecycle: Lifecycle, clock: Clock) -> "AgentApi":
        # 2 a second: an agent identifies once and renews every few minutes; 50: a fast checkpoint commits, asks, logs
        strangers, calls = Buckets(clock, rate=2, burst=40), Buckets(clock, rate=50, burst=400)
        return cls(credentials, lifecycle, clock, strangers, calls)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post(f"{AGENT_API}/identify", answered(self._identify)),
            web.get(f"{AGENT_API}/challenge", answered(self._challenge), allow_head=False),
            web.post(f"{AGENT_API}/token", answered(self._token)),
            web.get(f"{AGENT_API}/plan", answered(self._plan), allow_head=False),
            web.post(f"{AGENT_API}/grants", answered(self._grants)),
            web.post(f"{AGENT_API}/reads", answered(self._reads)),
            web.post(f"{AGENT_API}/commit", answered(self._commit)),
            web.post(f"{AGENT_API}/log", answered(self._log)),
        ]

    # --- who calls ------------------------------------------------------------------------------------------------

    async def _identify(self, request: web.Request) -> msgspec.Struct:
        call = await read(request, IdentifyCall, MAX_SMALL_BODY)
        self.strangers.take(call.run)
        reply = await self.credentials.identify(call, _peer(request))
        if (live := self.lifecycle.live_run(reply.run)) is not None:
            live.on_contact()
        return reply

    async def _challenge(self, request: web.Request) -> msgspec.Struct:
        run_id = request.query.get("run", "")[:64]
        self.strangers.take(run_id)
        return await self.credentials.challenge(run_id)

    async def _token(self, request: web.Request) -> msgspec.Struct:
        call = await read(request, TokenCall, MAX_SMALL_BODY)
        self.strangers.take(call.run)
        return await self.credentials.token(call)

    async def _run(self, request: web.Request) -> RunContext:
        """The calling run. Raises Unauthenticated, Gone, Conflict or TooMany."""
        scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("this call takes the run's token as bearer")
        run, _ = await self.credentials.check(token.strip())
        self.calls.take(run.run_id)
        if (live := self.lifecycle.live_run(run.run_id)) is not None:
            live.on_contact()
        return run

    # --- what it asks -----------------------------------------------------------------------------------------------

    async def _plan(self, request: web.Request) -> msgspec.Struct:
        return await self.lifecycle.plan((await self._run(request)).run_id)

    async def _grants(self, request: web.Request) -> msgspec.Struct:
        run, call = await self._run(request), await read(request, GrantsCall, MAX_BODY)
        _at_most(MAX_OBJECTS, len(call.objects))
        return await self.lifecycle.parts.catalogue.grants(run, call)

    async def _reads(self, request: web.Request) -> msgspec.Struct:
        run, call = await self._run(request), await read(request, ReadsCall, MAX_BODY)
        _at_most(MAX_OBJECTS, len(call.objects))
        return await self.lifecycle.parts.catalogue.reads(run, call)

    async def _commit(self, request: web.Request) -> msgspec.Struct:
        run, call = await self._run(request), await read(request, CommitCall, MAX_BODY)
        _at_most(MAX_PACKS, len(call.packs))
        reply = await self.lifecycle.parts.catalogue.commit(run, call)
        if (live := self.lifecycle.live_run(run.run_id)) is not None:
            await live.on_commit(call.reason)
        return reply

    async def _log(self, request: web.Request) -> msgspec.Struct:
        run = await self._run(request)
        stream = request.query.get("stream", "")
        if stream not in ("agent", "tool"):
            raise BadRequest("an agent writes the streams 'agent' and 'tool'")
        offset = request.query.get("offset", "")
        if not (offset.isascii() and offset.isdigit() and len(offset) < 19):
            raise BadRequest("offset is a whole number, 0 or more")
        data = await read_body(request, MAX_PIECE)
        logs = self.lifecycle.parts.logs
        following = await asyncio.to_thread(logs.append, run.run_id, stream, int(offset), data)
        live = self.lifecycle.live_run(run.run_id)
        if live is not None and data:
            self.lifecycle.parts.tell(live.studio, "log")
        return LogReply(next_offset=following)


def answered(handler: Callable[[web.Request], Awaitable[msgspec.Struct]]) -> Handler:
    """A handler that gives a struct or raises a PorticoError, as one that answers JSON."""

    @functools.wraps(handler)
    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return _json(200, await handler(request))
        except PorticoError as error:
            return _json(error.status, ErrorReply(message=error.message))
        except TimeoutError:
            return _json(408, ErrorReply(message="the request's body did not come in time"))

    return answer


async def read(request: web.Request, kind: type[Call], limit: int) -> Call:
    """The request's JSON as that struct. Raises BadRequest or TooLarge."""
    try:
        return msgspec.json.decode(await read_body(request, limit), type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise BadRequest(f"the body is not what is expected: {error}") from None


async def read_body(request: web.Request, limit: int) -> bytes:
    """At most `limit` bytes within BODY_TIMEOUT. Raises TooLarge."""
    too_large = TooLarge(f"the body has at most {limit} bytes")
    if (request.content_length or 0) > limit:
        raise too_large
    data = bytearray()
    async with asyncio.timeout(BODY_TIMEOUT):
        async for piece in request.content.iter_any():
            data += piece
            if len(data) > limit:
                raise too_large
    return bytes(data)


def _at_most(limit: int, count: int) -> None:
    if count > limit:
        raise TooLarge(f"at most {limit} objects in one call")


def _json(status: int, value: msgspec.Struct) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(value), content_type="application/json")


def _peer(request: web.Request) -> str:
    return (request.headers.get("X-Forwarded-For", "") or request.remote or "").rpartition(",")[2].strip()[:64]
