"""The log of the newest run, followed live; a cut stream goes on where it was."""

from aiohttp import web
from markupsafe import escape

from portico_gateway.auth.values import Actor
from portico_gateway.errors import NotFound
from portico_gateway.studios.values import Status, StudioView
from portico_gateway.web.live import HEARTBEAT, STREAM_SECONDS, Changes, Stream, follow
from portico_gateway.web.pages.open import show_state
from portico_gateway.web.site import Site, Visitor, find_visitor, must, page_values, signed_in, studio
from portico_gateway.web.words import plain_log

STREAMS = (("all", "All"), ("tool", "Tool"), ("agent", "Agent"), ("build", "Build"))
POLL = 2.0
"""Seconds after which the log is looked at even when nothing was told."""

FIRST = 256 * 1024
"""Bytes of log a page begins with: the end of a longer one."""

ALIVE = (Status.BUILDING, Status.STARTING, Status.RUNNING, Status.STOPPING)


def routes(site: Site) -> list[web.RouteDef]:
    return [
        web.get("/studios/{session_id}/logs", signed_in(site, logs_page)),
        web.get("/studios/{session_id}/logs/drawer", signed_in(site, drawer)),
        web.get("/studios/{session_id}/logs/text", signed_in(site, text)),
        web.get("/studios/{session_id}/logs/events", signed_in(site, events)),
    ]


async def logs_page(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    view = await studio(site, request, visitor)
    refused = view.refusals.get("logs", "") if "logs" not in view.actions else ""
    log, offset = ("", 0) if refused else await _newest(site, visitor.actor, view, _stream(request))
    return show_state(
        site,
        request,
        visitor,
        view,
        "logs.html",
        tab="logs",
        streams=STREAMS,
        stream=_stream(request),
        log=log,
        log_offset=offset,
        refused=refused,
    )


async def drawer(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    """The log alone, for the drawer of the start page."""
    view = await studio(site, request, visitor)
    must(view, "logs")
    log, offset = await _newest(site, visitor.actor, view, "all")
    return site.renderer.html(
        "_log.html",
        page_values(site, request, visitor, studio=view, stream="all", log=log, log_offset=offset),
    )


async def text(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    """The whole log as plain text, to keep or send on."""
    view = await studio(site, request, visitor)
    must(view, "logs")
    response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
    response.headers["Content-Disposition"] = f'attachment; filename="{view.session_id}-{_stream(request)}.log"'
    await response.prepare(request)
    offset = 0
    while True:
        chunk = await site.studios.logs(visitor.actor, view.session_id, stream=_stream(request), offset=offset)
        if chunk.next_offset <= offset:
            break
        await response.write(plain_log(chunk.text).encode())
        offset = chunk.next_offset
    await response.write_eof()
    return response


async def events(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    view = await studio(site, request, visitor)
    must(view, "logs")
    begin = _whole(request.headers.get("Last-Event-ID")) or _whole(request.query.get("offset"))

    async def still_valid() -> bool:
        again = await find_visitor(site, request)
        return again is not None and again.actor.user.id == visitor.actor.user.id

    async def body(stream: Stream, changes: Changes) -> None:
        offset = begin
        began = checked = site.clock.monotonic()
        while not changes.ended and site.clock.monotonic() - began < STREAM_SECONDS:
            offset = await _send_new(site, visitor.actor, view, _stream(request), offset, stream)
            if site.clock.monotonic() - checked >= HEARTBEAT:
                if not await still_valid():
                    return
                checked = site.clock.monotonic()
                await stream.sign_of_life()
            await changes.take(POLL)

    async with site.streams.open(request) as stream:
        await follow(site.studios.watch(visitor.actor, view.workspace_id), stream, body, view.session_id)
    return stream.response


async def _send_new(site: Site, actor: Actor, view: StudioView, name: str, offset: int, stream: Stream) -> int:
    """What the log has beyond `offset`, sent; returns where it ends. A shorter log is a new run's: from its start."""
    while True:
        try:
            chunk = await site.studios.logs(actor, view.session_id, stream=name, offset=offset)
        except NotFound:
            return offset
        if chunk.next_offset < offset:
            offset = 0
            continue
        if chunk.next_offset == offset or not chunk.text:
            return chunk.next_offset
        offset = chunk.next_offset
        await stream.send("log", str(escape(plain_log(chunk.text))), str(offset))


async def _newest(site: Site, actor: Actor, view: StudioView, name: str) -> tuple[str, int]:
    """The end of the log, at most FIRST bytes of it, and the offset behind it."""
    kept, offset = "", 0
    while True:
        chunk = await site.studios.logs(actor, view.session_id, stream=name, offset=offset)
        if chunk.next_offset <= offset or not chunk.text:
            return plain_log(kept), offset
        kept = (kept + chunk.text)[-FIRST:]
        offset = chunk.next_offset


def _stream(request: web.Request) -> str:
    wanted = request.query.get("stream", "all")
    return wanted if wanted in dict(STREAMS) else "all"


def _whole(raw: str | None) -> int:
    return int(raw) if raw and raw.isascii() and raw.isdigit() and len(raw) < 16 else 0
