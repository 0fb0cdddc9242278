"""The timeline of a studio's checkpoints."""

from aiohttp import web

from portico_gateway.errors import BadRequest, Conflict
from portico_gateway.web.pages.open import show_state
from portico_gateway.web.site import Site, Visitor, go, posted, signed_in, studio

PAGE = 100


def routes(site: Site) -> list[web.RouteDef]:
    return [
        web.get("/studios/{session_id}/checkpoints", signed_in(site, timeline)),
        web.get("/studios/{session_id}/checkpoints/list", signed_in(site, live_timeline)),
        web.post(r"/studios/{session_id}/checkpoints/{checkpoint_id:\d{1,18}}/name", signed_in(site, rename)),
    ]


async def timeline(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    return await _timeline(site, request, visitor, "checkpoints.html")


async def live_timeline(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    """The part of the page that changes."""
    return await _timeline(site, request, visitor, "_checkpoints.html")


async def rename(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    view = await studio(site, request, visitor)
    fields = await posted(request, visitor)
    name = " ".join(fields.get("name", "").split())
    if not 1 <= len(name) <= 128:
        raise BadRequest("a checkpoint's name has 1 to 128 characters")
    try:
        await site.studios.rename_checkpoint(
            visitor.actor, view.session_id, int(request.match_info["checkpoint_id"]), name
        )
    except (BadRequest, Conflict) as error:
        return await _timeline(site, request, visitor, "checkpoints.html", error.message, error.status)
    return go(f"/studios/{view.session_id}/checkpoints", "renamed")


async def _timeline(
    site: Site,
    request: web.Request,
    visitor: Visitor,
    template: str,
    problem: str | None = None,
    status: int = 200,
) -> web.Response:
    view = await studio(site, request, visitor)
    raw = request.query.get("offset", "0")
    offset = int(raw) if raw.isascii() and raw.isdigit() and len(raw) < 9 else 0
    page = await site.studios.list_checkpoints(visitor.actor, view.session_id, offset=offset, limit=PAGE)
    response = show_state(
        site,
        request,
        visitor,
        view,
        template,
        tab="checkpoints",
        checkpoints=page.checkpoints,
        total=page.total,
        offset=offset,
        page_size=PAGE,
        problem=problem,
    )
    response.set_status(status)
    return response
