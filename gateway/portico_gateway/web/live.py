"""Server-sent events: what changed is told at once; the page then asks for the fragment, with its rights checked anew.

An event carries the kind of change alone ('status', 'progress', …), so a stream leaks nothing that its reader might
lose the right to see. Changes that come together are told once. A stream ends when the sign-in behind it does, after
STREAM_SECONDS (browsers reconnect by themselves), or when the gateway stops.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import hdrs, web

from portico_gateway.errors import PorticoError
from portico_gateway.studios.values import StudioEvent
from portico_shared.clock import Clock

HEARTBEAT = 20.0
"""Seconds between signs of life: balancers cut silent connections at 60 s; the sign-in is checked as often."""

STREAM_SECONDS = 1800.0

RETRY_MS = 2000
"""What browsers wait before they reconnect."""

MAX_STREAMS = 2000
"""Open event streams of one control process: about 40 KiB each."""


class Streams:
    """The open event streams, so that they can be ended when the gateway stops."""

    def __init__(self) -> None:
        self._closing = asyncio.Event()
        self._open = 0

    async def close(self) -> None:
        self._closing.set()

    @contextlib.asynccontextmanager
    async def open(self, request: web.Request) -> AsyncIterator["Stream"]:
        """Raises HTTPServiceUnavailable over MAX_STREAMS."""
        if self._open >= MAX_STREAMS or self._closing.is_set():
            raise web.HTTPServiceUnavailable(text="too many open pages", headers={hdrs.RETRY_AFTER: "10"})
        response = web.StreamResponse(
            headers={hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8", hdrs.CACHE_CONTROL: "no-store"}
        )
        self._open += 1
        try:
            await response.prepare(request)
            await response.write(f"retry: {RETRY_MS}\n\n".encode())
            yield Stream(response, self._closing)
        except ConnectionError:
            pass  # the reader went away before the first word
        finally:
            self._open -= 1


class Stream:
    def __init__(self, response: web.StreamResponse, closing: asyncio.Event) -> None:
        self.response = response
        self.closing = closing

    async def send(self, event: str, data: str, last_id: str = "") -> None:
        lines = [f"event: {event}", *(f"data: {line}" for line in data.split("\n"))]
        if last_id:
            lines.append(f"id: {last_id}")
        await self.response.write(("\n".join(lines) + "\n\n").encode())

    async def sign_of_life(self) -> None:
        await self.response.write(b":\n\n")


class Changes:
    """What came in since it was last asked for; any number of changes fits, since only their kinds are kept."""

    def __init__(self) -> None:
        self._kinds: set[str] = set()
        self._some = asyncio.Event()
        self.ended = False

    def note(self, kind: str) -> None:
        self._kinds.add(kind)
        self._some.set()

    def end(self) -> None:
        self.ended = True
        self._some.set()

    async def take(self, seconds: float) -> frozenset[str]:
        """The kinds of what changed; empty when nothing did within `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._some.wait()
        self._some.clear()
        kinds, self._kinds = frozenset(self._kinds), set()
        return kinds


Follow = Callable[[Stream, Changes], Awaitable[None]]


async def follow(
    events: AsyncIterator[StudioEvent],
    stream: Stream,
    body: Follow,
    session_id: str | None = None,
) -> None:
    """Run `body` with the changes of a workspace (or of one studio) until it returns or the gateway stops."""
    changes = Changes()
    async with asyncio.TaskGroup() as group:
        helpers = [
            group.create_task(_pump(events, changes, session_id), name="web-events"),
            group.create_task(_end_on(stream.closing, changes), name="web-events-close"),
        ]
        try:
            await body(stream, changes)
        except ConnectionError:
            pass  # the reader went away
        finally:
            for helper in helpers:
                helper.cancel()


async def tell_changes(
    stream: Stream, changes: Changes, clock: Clock, still_valid: Callable[[], Awaitable[bool]]
) -> None:
    """The plain use: one 'changed' event for all that came together.

    The first one is sent at once: what happened between the page and its stream is not lost, nor what happened while
    a stream was cut.
    """
    began = checked = clock.monotonic()
    await stream.send("changed", "hello")
    while not changes.ended and clock.monotonic() - began < STREAM_SECONDS:
        kinds = await changes.take(HEARTBEAT)
        if not kinds or clock.monotonic() - checked >= HEARTBEAT:
            if not await still_valid():
                return
            checked = clock.monotonic()
        if kinds:
            await stream.send("changed", " ".join(sorted(kinds)))
        else:
            await stream.sign_of_life()


async def _pump(events: AsyncIterator[StudioEvent], changes: Changes, session_id: str | None) -> None:
    try:
        async for event in events:
            if session_id is None or event.session_id == session_id:
                changes.note(event.kind)
    except PorticoError:
        pass  # the workspace is gone, or for other eyes now: the page's next question says so
    finally:
        if (close := getattr(events, "aclose", None)) is not None:
            await close()
        changes.end()


async def _end_on(closing: asyncio.Event, changes: Changes) -> None:
    await closing.wait()
    changes.end()
