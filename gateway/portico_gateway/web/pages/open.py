"""The start page: the steps live, the log in a drawer, then the tool in the same tab."""

from typing import Any
from urllib.parse import quote

from aiohttp import web

from portico_gateway.errors import BadRequest, NotFound
from portico_gateway.studios.values import CheckpointView, StartOverride, Status, StudioView
from portico_gateway.web.live import follow, tell_changes
from portico_gateway.web.locations import safe_path
from portico_gateway.web.progress import log_tail, steps
from portico_gateway.web.site import (
    Site,
    Visitor,
    find_visitor,
    find_workspace,
    go,
    must,
    page_values,
    posted,
    redirect,
    show,
    signed_in,
    studio,
)

OLDER = 20
"""How many older checkpoints the start form offers."""


def routes(site: Site) -> list[web.RouteDef]:
    return [
        web.get("/studios/{session_id}/open", signed_in(site, open_page)),
        web.get("/studios/{session_id}/open/state", signed_in(site, state)),
        web.get("/studios/{session_id}/events", signed_in(site, events)),
        web.post("/studios/{session_id}/start", signed_in(site, start)),
    ]


async def open_page(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    view = await studio(site, request, visitor)
    wanted = safe_path(request.query.get("next")) or "/"
    if view.status is Status.RUNNING and "connect" in view.actions:
        return redirect(view.url + wanted)
    return await _open(site, request, visitor, view, "open.html")


async def state(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    """The part of the start page that changes; once the tool answers it sends the browser there."""
    view = await studio(site, request, visitor)
    if view.status is Status.RUNNING and "connect" in view.actions:
        wanted = safe_path(request.query.get("next")) or "/"
        return web.Response(headers={"HX-Redirect": view.url + wanted})
    return await _open(site, request, visitor, view, "_open.html")


async def events(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    """Changes of one studio."""
    view = await studio(site, request, visitor)

    async def still_valid() -> bool:
        again = await find_visitor(site, request)
        if again is None:
            return False
        try:
            await site.studios.describe(again.actor, view.session_id)
        except NotFound:
            return False
        return True

    async with site.streams.open(request) as stream:
        await follow(
            site.studios.watch(visitor.actor, view.workspace_id),
            stream,
            lambda stream, changes: tell_changes(stream, changes, site.clock, still_valid),
            view.session_id,
        )
    return stream.response


async def start(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    view = await studio(site, request, visitor)
    fields = await posted(request, visitor)
    chosen = fields.get("checkpoint", "")
    if chosen and (not (chosen.isascii() and chosen.isdigit()) or len(chosen) > 18):
        raise BadRequest("that is not a checkpoint")
    if view.status not in (Status.STARTING, Status.RUNNING, Status.BUILDING):  # a second press asks for nothing new
        must(view, "start")
        override = StartOverride(checkpoint_id=int(chosen)) if chosen else None
        await site.studios.start(visitor.actor, view.session_id, override)
    wanted = safe_path(fields.get("next"))
    return go(f"/studios/{view.session_id}/open" + _next(wanted))


async def _open(site: Site, request: web.Request, visitor: Visitor, view: StudioView, template: str) -> web.Response:
    wanted = safe_path(request.query.get("next"))
    failed = view.status in (Status.ERRORED, Status.BUILD_FAILED)
    older: tuple[CheckpointView, ...] = ()
    if template == "open.html" and "start" in view.actions:
        page = await site.studios.list_checkpoints(visitor.actor, view.session_id, limit=OLDER)
        older = tuple(c for c in page.checkpoints if c.restorable and c.status in ("saved", "sealed"))
    return show_state(
        site,
        request,
        visitor,
        view,
        template,
        wanted=wanted or "",
        query=_next(wanted),
        older=older,
        tail=await log_tail(site.studios, visitor.actor, view) if failed else "",
    )


def show_state(
    site: Site, request: web.Request, visitor: Visitor, view: StudioView, template: str, **values: Any
) -> web.Response:
    here = find_workspace(visitor, view)
    if template.startswith("_"):
        return site.renderer.html(
            template, page_values(site, request, visitor, here=here, studio=view, steps=steps(view), **values)
        )
    return show(
        site, request, visitor, template, here=here, section="studios", studio=view, steps=steps(view), **values
    )


def _next(wanted: str | None) -> str:
    return f"?next={quote(wanted, safe='/')}" if wanted and wanted != "/" else ""
