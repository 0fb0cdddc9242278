"""One studio: why it is as it is, who is here, when it stops, what is saved, and what can be done about it."""

from aiohttp import web

from portico_gateway.errors import BadRequest
from portico_gateway.web.pages.open import show_state
from portico_gateway.web.site import Site, Visitor, go, must, posted, signed_in, studio

RECENT = 5


def routes(site: Site) -> list[web.RouteDef]:
    return [
        web.get("/studios/{session_id}", signed_in(site, overview)),
        web.get("/studios/{session_id}/overview", signed_in(site, live_overview)),
        web.post("/studios/{session_id}/stop", signed_in(site, stop)),
        web.post("/studios/{session_id}/extend", signed_in(site, extend)),
        web.post("/studios/{session_id}/checkpoint", signed_in(site, checkpoint_now)),
        web.post("/studios/{session_id}/delete", signed_in(site, delete)),
    ]


async def overview(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    return await _overview(site, request, visitor, "studio.html")


async def live_overview(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    """The part of the page that changes."""
    return await _overview(site, request, visitor, "_studio.html")


async def stop(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    view = await studio(site, request, visitor)
    fields = await posted(request, visitor)
    must(view, "stop")
    await site.studios.stop(visitor.actor, view.session_id)
    return go(_back(fields.get("back"), view.workspace_id, view.session_id), "stopping")


async def extend(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    view = await studio(site, request, visitor)
    await posted(request, visitor)
    must(view, "extend")
    await site.studios.extend(visitor.actor, view.session_id)
    return go(f"/studios/{view.session_id}", "extended")


async def checkpoint_now(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    view = await studio(site, request, visitor)
    fields = await posted(request, visitor)
    must(view, "checkpoint")
    name = "_".join(fields.get("name", "").split()) or None
    if name is not None and len(name) > 128:
        raise BadRequest("a checkpoint's name has at most 128 characters")
    await site.studios.checkpoint_now(visitor.actor, view.session_id, name)
    return go(f"/studios/{view.session_id}/checkpoints", "checkpoint")


async def delete(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    view = await studio(site, request, visitor)
    fields = await posted(request, visitor)
    must(view, "delete")
    if fields.get("name", "").strip() != view.name:
        raise BadRequest(f"to delete this studio, type its name exactly: {view.name}. Nothing was deleted")
    await site.studios.delete(visitor.actor, view.session_id)
    return go(f"/w/{view.workspace_id}", "deleted")


async def _overview(site: Site, request: web.Request, visitor: Visitor, template: str) -> web.Response:
    view = await studio(site, request, visitor)
    recent = await site.studios.list_checkpoints(visitor.actor, view.session_id, limit=RECENT)
    return show_state(
        site, request, visitor, view, template, tab="overview", recent=recent.checkpoints, saved_total=recent.total
    )


def _back(wanted: str | None, workspace_id: int, session_id: str) -> str:
    return f"/w/{workspace_id}" if wanted == "list" else f"/studios/{session_id}"
