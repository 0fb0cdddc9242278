"""What Portico says on a studio's own host while its tool does not answer.

The edge forwards such requests to control, with who asks in headers of its own. This origin belongs to the studio's
code, so nothing here changes anything: starting, stopping and sharing are links to the management host.

    GET  …anything…           document: the waiting, stopped or errored page; else 424 JSON
    GET  /_portico/events     what changes, as server-sent events
    GET  /_portico/state      the part of the page that changes; makes the page load again once the tool answers
    GET  /_portico/static/…   styles and scripts
"""

from collections.abc import Awaitable, Callable
from urllib.parse import quote

from aiohttp import hdrs, web

from portico_gateway.auth.values import Actor
from portico_gateway.errors import NotFound, PorticoError
from portico_gateway.settings import Settings
from portico_gateway.studios.values import Status, Studios, StudioView
from portico_gateway.web import words
from portico_gateway.web.doors import Auth
from portico_gateway.web.live import Streams, follow, tell_changes
from portico_gateway.web.locations import safe_path
from portico_gateway.web.progress import log_tail, steps
from portico_gateway.web.rendering import Renderer
from portico_gateway.web.security import harden, policy
from portico_gateway.web.site import peer
from portico_shared.clock import Clock
from portico_shared.ids import is_session_id

STUDIO_HEADER = "X-Portico-Studio"
USER_HEADER = "X-Portico-User"
SIGN_IN_HEADER = "X-Portico-Sign-In"
PREFIX = "/_portico/"


class StudioPages:
    """Call `handle` for each request that carries X-Portico-Studio, and `close` when the gateway stops."""

    def __init__(self, studios: Studios, auth: Auth, settings: Settings, clock: Clock) -> None:
        self._studios = studios
        self._auth = auth
        self._settings = settings
        self._clock = clock
        self._renderer = Renderer(PREFIX + "static")
        self._streams = Streams()

    async def close(self) -> None:
        await self._streams.close()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Never raises for what a visitor did; the answer says it."""
        try:
            response = await self._answer(request)
        except PorticoError as error:
            response = self._problem(request, error)
        if not response.prepared:
            harden(response, policy())
        return response

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path.startswith(PREFIX + "static/"):
            try:
                return self._renderer.serve_static(request, request.path.removeprefix(PREFIX + "static/"))
            except KeyError:
                raise NotFound("there is nothing at this address") from None
        actor, view = await self._visit(request)
        if request.path == PREFIX + "events" and request.method == hdrs.METH_GET:
            return await self._events(request, actor, view)
        if request.path == PREFIX + "state" and request.method == hdrs.METH_GET:
            if view.status is Status.RUNNING:
                return web.Response(headers={"HX-Refresh": "true"})
            return await self._page(request, actor, view, "studio_host_open.html")
        if request.path.startswith(PREFIX):
            raise NotFound("there is nothing at this address")
        if not is_navigation(request):
            return self._not_running(view)
        return await self._page(request, actor, view, "waiting.html")

    async def _visit(self, request: web.Request) -> tuple[Actor, StudioView]:
        """Who asks for which studio. Raises NotFound for everybody who may not see it: nothing is revealed."""
        session_id, user = request.headers.get(STUDIO_HEADER, ""), request.headers.get(USER_HEADER, "0")
        if not is_session_id(session_id) or not user.isdigit() or user == "0":
            raise NotFound("there is nothing at this address, or it is not for you to see")
        actor = await self._auth.actor_of(int(user), request.headers.get(SIGN_IN_HEADER, ""), peer(request))
        if actor is None:
            raise NotFound("there is nothing at this address, or it is not for you to see")
        return actor, await self._studios.describe(actor, session_id)

    async def _page(self, request: web.Request, actor: Actor, view: StudioView, template: str) -> web.Response:
        wanted = self._wanted(request)
        failed = view.status in (Status.ERRORED, Status.BUILD_FAILED)
        values = {
            "studio": view,
            "steps": steps(view),
            "tail": await log_tail(self._studios, actor, view) if failed else "",
            "now": self._clock.now(),
            "base_url": self._settings.base_url,
            "start_url": self._start_url(view, wanted),
            "wanted": wanted,
            "user": actor.user,
        }
        # 200 for the page itself: some browsers replace an error's body by their own words
        return self._renderer.html(template, values)

    async def _events(self, request: web.Request, actor: Actor, view: StudioView) -> web.StreamResponse:
        async def still_valid() -> bool:
            try:
                await self._visit(request)
            except PorticoError:
                return False
            return True

        async with self._streams.open(request) as stream:
            await follow(
                self._studios.watch(actor, view.workspace_id),
                stream,
                lambda stream, changes: tell_changes(stream, changes, self._clock, still_valid),
                view.session_id,
            )
        return stream.response

    def _not_running(self, view: StudioView) -> web.Response:
        """424: a script of a page that was left open must not take our page for the tool's answer."""
        return web.json_response(
            {
                "message": f"the studio '{view.name}' is {words.STATUS[view.status].lower()}; open it in a browser",
                "status": view.status.value,
                "reason": words.why(view),
                "startUrl": self._start_url(view, "/"),
            },
            status=424,
        )

    def _problem(self, request: web.Request, error: PorticoError) -> web.Response:
        if not is_navigation(request):
            return web.json_response({"message": error.message}, status=error.status)
        values = {"message": error.message, "base_url": self._settings.base_url, "status_code": error.status}
        return self._renderer.html("studio_problem.html", values, error.status)

    def _wanted(self, request: web.Request) -> str:
        """The document the visitor is after, kept through start; the live part is told it by the page."""
        if request.path == PREFIX + "state":
            return safe_path(request.query.get("next")) or "/"
        return safe_path(request.raw_path) or "/"

    def _start_url(self, view: StudioView, wanted: str) -> str:
        query = f"?next={quote(wanted, safe='/')}" if wanted != "/" else ""
        return f"{self._settings.base_url}/studios/{view.session_id}/open{query}"


def is_navigation(request: web.BaseRequest) -> bool:
    """Whether a person waits for a document: browsers say so; for older ones the wish for HTML counts."""
    if request.method not in (hdrs.METH_GET, hdrs.METH_HEAD):
        return False
    mode = request.headers.get("Sec-Fetch-Mode")
    if mode is not None:
        return mode == "navigate"
    return "text/html" in request.headers.get(hdrs.ACCEPT, "")


def build_studio_pages(
    studios: Studios, auth: Auth, settings: Settings, clock: Clock
) -> tuple[Callable[[web.Request], Awaitable[web.StreamResponse]], Callable[[], Awaitable[None]]]:
    """The handler for requests with X-Portico-Studio, and what to await when the gateway stops."""
    pages = StudioPages(studios, auth, settings, clock)
    return pages.handle, pages.close
