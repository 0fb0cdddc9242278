"""A visitor comes from a studio's host and goes back with a one-use code, if they may."""

import re
from urllib.parse import quote

from aiohttp import web

from portico_gateway.errors import BadRequest, Forbidden, NotFound
from portico_gateway.web.locations import safe_path
from portico_gateway.web.site import Site, Visitor, find_workspace, redirect, show, signed_in
from portico_shared.ids import is_session_id

_NONCE = re.compile(r"[0-9a-f]{64}")


def routes(site: Site) -> list[web.RouteDef]:
    return [web.get("/handover", signed_in(site, handover))]


async def handover(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    session_id = request.query.get("studio", "")
    nonce = request.query.get("nonce", "")
    if not is_session_id(session_id):
        raise NotFound("there is no such studio, or it is not for you to see")
    if _NONCE.fullmatch(nonce) is None:
        raise BadRequest("this link is not complete; open the studio's own address again")
    location = safe_path(request.query.get("next")) or "/"
    try:
        code = await site.auth.handover_code(visitor.actor, session_id, bytes.fromhex(nonce), location)
    except Forbidden as error:
        return await _refused(site, request, visitor, session_id, error)
    return redirect(f"{site.settings.studio_url(session_id)}/_portico/handover?code={quote(code, safe='')}")


async def _refused(
    site: Site, request: web.Request, visitor: Visitor, session_id: str, error: Forbidden
) -> web.StreamResponse:
    """Who may see the studio is told whom to ask; for all others it does not exist (`describe` raises NotFound)."""
    view = await site.studios.describe(visitor.actor, session_id)
    return show(
        site,
        request,
        visitor,
        "not_allowed.html",
        status=403,
        here=find_workspace(visitor, view),
        studio=view,
        why=error.message,
    )
