"""Changes in a workspace as server-sent events. A stream ends when its reader leaves, when the right to read it does,
or when the gateway stops; whichever comes first closes the watch behind it at once."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

from aiohttp import hdrs, web

from portico_gateway.api.doors import Parts
from portico_gateway.api.requests import path_number
from portico_gateway.api.table import Route
from portico_gateway.auth.values import Action, Actor
from portico_gateway.errors import PorticoError, Unavailable
from portico_gateway.studios.values import StudioEvent

CHECK = 5.0
"""Seconds between two looks whether the stream may go on; each is a sign of life on the wire too."""
MAX_STREAMS = 1000
"""Open event streams of one control process."""


class EventStreams:
    """The open event streams of the API, ended by `close` when the gateway stops."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._closing = asyncio.Event()
        self._open = 0

    async def close(self, app: web.Application | None = None) -> None:
        self._closing.set()

    async def serve(self, request: web.Request, actor: Actor, workspace_id: int) -> web.StreamResponse:
        """Answer with the events; returns when the stream is over. Raises before the first byte, never after it."""
        await self._parts.rights.authorise(actor, Action.STUDIO_READ, workspace_id)
        if self._open >= MAX_STREAMS or self._closing.is_set():
            raise Unavailable("too many open event streams; try again in a moment")
        self._open += 1
        try:
            return await self._serve(request, actor, workspace_id)
        finally:
            self._open -= 1

    async def _serve(self, request: web.Request, actor: Actor, workspace_id: int) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8", hdrs.CACHE_CONTROL: "no-store"}
        )
        with contextlib.suppress(ConnectionError):
            await response.prepare(request)
            async with (
                contextlib.aclosing(self._parts.studios.watch(actor, workspace_id)) as changes,
                asyncio.TaskGroup() as group,
            ):
                ways_to_end = (
                    group.create_task(_tell(changes, response), name="api-events"),
                    group.create_task(self._watch_right(actor, workspace_id, response), name="api-events-right"),
                    group.create_task(self._closing.wait(), name="api-events-close"),
                )
                try:
                    await asyncio.wait(ways_to_end, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways_to_end:
                        way.cancel()
        return response

    async def _watch_right(self, actor: Actor, workspace_id: int, response: web.StreamResponse) -> None:
        with contextlib.suppress(ConnectionError, PorticoError):
            while await self._parts.auth.actor_of(actor.user.id, actor.sign_in, actor.peer) is not None:
                await self._parts.rights.authorise(actor, Action.STUDIO_READ, workspace_id)
                await response.write(b":\n\n")
                await self._parts.clock.sleep(CHECK)


async def _tell(changes: AsyncIterator[StudioEvent], response: web.StreamResponse) -> None:
    with contextlib.suppress(ConnectionError, PorticoError):
        async for event in changes:
            data = json.dumps({"sessionId": event.session_id, "kind": event.kind})
            await response.write(f"data: {data}\n\n".encode())


STREAMS = web.AppKey("streams", EventStreams)


async def events(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    """One event per change in the workspace: `data: {"sessionId", "kind"}`."""
    return await request.app[STREAMS].serve(request, actor, path_number(request, "workspaceId"))


ROUTES = (
    Route(
        method="GET",
        path="/workspaces/{workspaceId}/events",
        name="WorkspaceEvents",
        summary="Changes as they happen (server-sent events)",
        handler=events,
        answer=str,
    ),
)
