"""The studios of a workspace: found, opened, started, and live."""

from typing import Any
from urllib.parse import quote

from aiohttp import web

from portico_gateway.auth.values import Role, Workspace
from portico_gateway.errors import BadRequest
from portico_gateway.web.live import follow, tell_changes
from portico_gateway.web.security import cookie_value, set_cookie
from portico_gateway.web.site import Site, Visitor, find_visitor, page_values, redirect, show, signed_in, workspace

PAGE = 100
MAX_SEARCH = 200
MAX_OFFSET = 1_000_000
WORKSPACE_COOKIE = "__Host-portico-workspace"
CHIPS = (("status:running", "Running"), ("status:starting", "Starting"), ("status:stopped", "Stopped"))


def routes(site: Site) -> list[web.RouteDef]:
    return [
        web.get("/", signed_in(site, home)),
        web.get(r"/w/{workspace_id:\d+}", signed_in(site, list_page)),
        web.get(r"/w/{workspace_id:\d+}/rows", signed_in(site, rows)),
        web.get(r"/w/{workspace_id:\d+}/events", signed_in(site, events)),
    ]


async def home(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    """The workspace last seen, else the first."""
    if not visitor.workspaces:
        return show(site, request, visitor, "no_workspace.html")
    last = cookie_value(request, WORKSPACE_COOKIE)
    found = next((w for w in visitor.workspaces if str(w.id) == last), visitor.workspaces[0])
    said = request.query.get("said", "")
    return redirect(f"/w/{found.id}" + (f"?said={said}" if said.isalpha() else ""))


async def list_page(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    here, role = await workspace(site, request, visitor)
    values = await _found(site, request, visitor, here, role)
    response = show(site, request, visitor, "studios.html", here=here, section="studios", **values)
    set_cookie(response, WORKSPACE_COOKIE, str(here.id), max_age=365 * 86400)
    return response


async def rows(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    """The part of the list that changes."""
    here, role = await workspace(site, request, visitor)
    values = await _found(site, request, visitor, here, role)
    response = site.renderer.html("_rows.html", page_values(site, request, visitor, here=here, **values))
    if request.headers.get("HX-Trigger") == "search":  # typed: the address follows, so that it can be sent on
        search = f"?search={quote(values['search'])}" if values["search"] else ""
        response.headers["HX-Replace-Url"] = f"/w/{here.id}{search}"
    return response


async def events(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    here, _ = await workspace(site, request, visitor)

    async def still_valid() -> bool:
        again = await find_visitor(site, request)
        return again is not None and any(w.id == here.id for w in again.workspaces)

    async with site.streams.open(request) as stream:
        await follow(
            site.studios.watch(visitor.actor, here.id),
            stream,
            lambda stream, changes: tell_changes(stream, changes, site.clock, still_valid),
        )
    return stream.response


async def _found(site: Site, request: web.Request, visitor: Visitor, here: Workspace, role: Role) -> dict[str, Any]:
    search = " ".join(request.query.get("search", "").split())[:MAX_SEARCH]
    offset = _offset(request.query.get("offset", "0"))
    problem = None
    try:
        page = await site.studios.list_studios(visitor.actor, here.id, search=search, offset=offset, limit=PAGE)
        studios, total = page.studios, page.total
    except BadRequest as error:
        studios, total, problem = (), 0, error.message
    return {
        "studios": studios,
        "total": total,
        "search": search,
        "offset": offset,
        "page_size": PAGE,
        "chips": [(term, word, _toggled(search, term), term in search.split()) for term, word in CHIPS]
        + [_mine(search, visitor)],
        "may_add": role >= Role.MAINTAIN,
        "role": role,
        "list_problem": problem,
    }


def _mine(search: str, visitor: Visitor) -> tuple[str, str, str, bool]:
    term = f"author:{visitor.actor.user.user_name}"
    return (term, "Mine", _toggled(search, term), term in search.split())


def _toggled(search: str, term: str) -> str:
    """The search with a chip switched: two `status:` terms never stand together."""
    terms = search.split()
    if term in terms:
        return " ".join(t for t in terms if t != term)
    key = term.partition(":")[0] + ":"
    return " ".join([*(t for t in terms if not t.startswith(key)), term])


def _offset(raw: str) -> int:
    return min(int(raw), MAX_OFFSET) if raw.isascii() and raw.isdigit() and len(raw) < 9 else 0
