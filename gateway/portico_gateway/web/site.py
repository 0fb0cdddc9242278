"""What every page is given, and the one way a page gets its visitor."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from aiohttp import hdrs, web
from multidict import MultiDictProxy

from portico_gateway.auth.values import Actor, Role, Workspace
from portico_gateway.errors import Forbidden, NotFound
from portico_gateway.link.messages import SESSION_COOKIE
from portico_gateway.settings import Settings
from portico_gateway.studios.values import Studios, StudioView
from portico_gateway.web import words
from portico_gateway.web.doors import Auth, People
from portico_gateway.web.live import Streams
from portico_gateway.web.rendering import Renderer
from portico_gateway.web.security import cookie_value, form_token, read_form
from portico_shared.clock import Clock
from portico_shared.ids import is_session_id


@dataclass(frozen=True, slots=True)
class Site:
    """The parts that pages are made of."""

    studios: Studios
    auth: Auth
    people: People
    settings: Settings
    clock: Clock
    renderer: Renderer
    streams: Streams


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody signed in, with what their page needs: the forms' token and the workspaces to switch between."""

    actor: Actor
    cookie: str
    workspaces: tuple[Workspace, ...]

    @property
    def token(self) -> str:
        return form_token(self.cookie)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Page = Callable[[Site, web.Request, Visitor], Awaitable[web.StreamResponse]]


def signed_in(site: Site, page: Page) -> Handler:
    """Wrap a page so that it is called with its visitor; others are sent to sign in and come back."""

    async def handler(request: web.Request) -> web.StreamResponse:
        visitor = await find_visitor(site, request)
        if visitor is None:
            return to_sign_in(request)
        return await page(site, request, visitor)

    return handler


async def find_visitor(site: Site, request: web.Request) -> Visitor | None:
    cookie = cookie_value(request, SESSION_COOKIE)
    if cookie is None:
        return None
    actor = await site.auth.actor_from_cookie(cookie, peer(request))
    if actor is None:
        return None
    return Visitor(actor, cookie, await site.people.workspaces(actor))


def to_sign_in(request: web.Request) -> web.Response:
    """A redirect for documents; a script's request makes its page load again, which then redirects."""
    if "HX-Request" in request.headers:
        return web.Response(status=401, headers={"HX-Refresh": "true"})
    if request.headers.get(hdrs.ACCEPT, "").startswith("text/event-stream"):
        return web.Response(status=204)  # tells an EventSource to stop trying
    wanted = request.raw_path if request.method == "GET" else request.query.get("from", "/")
    return redirect("/sign-in" + ("" if wanted == "/" else f"?next={quote(wanted, safe='/')}"))


def peer(request: web.BaseRequest) -> str:
    """Whom the request came from, as the edge says; it sets the header anew on each request."""
    return (request.headers.get("X-Forwarded-For", "") or request.remote or "").rpartition(",")[2].strip()[:64]


def user_agent(request: web.BaseRequest) -> str:
    return request.headers.get(hdrs.USER_AGENT, "")[:256]


async def posted(request: web.Request, visitor: Visitor) -> MultiDictProxy[str]:
    """The fields of a visitor's form, its token checked."""
    return await read_form(request, visitor.cookie)


def session_id(request: web.Request) -> str:
    """The studio in the address. Raises NotFound when it cannot be one."""
    found = request.match_info["session_id"]
    if not is_session_id(found):
        raise NotFound("there is no such studio, or it is not for you to see")
    return found


async def studio(site: Site, request: web.Request, visitor: Visitor) -> StudioView:
    return await site.studios.describe(visitor.actor, session_id(request))


async def workspace(site: Site, request: web.Request, visitor: Visitor) -> tuple[Workspace, Role]:
    """The workspace in the address and the visitor's role in it. Raises NotFound for others' workspaces."""
    wanted = request.match_info["workspace_id"]
    found = next((w for w in visitor.workspaces if str(w.id) == wanted), None)
    role = await site.people.role(visitor.actor, found.id) if found is not None else None
    if found is None or role is None:
        raise NotFound("there is no such workspace, or you are not a member of it")
    return found, role


def must(view: StudioView, action: str) -> None:
    """Raises Forbidden with the studio's own reason when this visitor may not do that now."""
    if action not in view.actions:
        raise Forbidden(view.refusals.get(action, "you may not do that with this studio"))


def page_values(site: Site, request: web.Request, visitor: Visitor | None, /, **values: Any) -> dict[str, Any]:
    """What the layout needs, and the page's own values."""
    return {
        "visitor": visitor,
        "here": None,
        "now": site.clock.now(),
        "base_url": site.settings.base_url,
        "said": words.SAID.get(request.query.get("said", "")),
        "problem": None,
        "section": "",
        **values,
    }


def show(
    site: Site, request: web.Request, visitor: Visitor | None, page: str, /, *, status: int = 200, **values: Any
) -> web.Response:
    return site.renderer.html(page, page_values(site, request, visitor, **values), status)


def redirect(location: str) -> web.Response:
    """303: the browser goes on with GET, so that reloading repeats no form."""
    return web.Response(status=303, headers={hdrs.LOCATION: location})


def go(location: str, said: str = "") -> web.Response:
    """Answer a form with the page to go on with, and one of `words.SAID` to say there."""
    mark = "&" if "?" in location else "?"
    return redirect(location + (f"{mark}said={said}" if said else ""))


def find_workspace(visitor: Visitor, view: StudioView) -> Workspace | None:
    return next((w for w in visitor.workspaces if w.id == view.workspace_id), None)
