"""Control's HTTP side: one application, four faces, told apart before anything else is looked at.

X-Portico-Studio: …      pages on a studio's own host (only the edge sets this header)
/api/agent/v1/…          calls of agents, and the local store's signed URLs
/api/…                   the REST API
everything else          the web pages; /healthz and /readyz
"""

import logging
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import web
from aiohttp.web_urldispatcher import AbstractRuleMatching, MatchedSubAppResource, _InfoDict

from portico_gateway.web.studio_pages import STUDIO_HEADER, StudioPages
from portico_shared.messages import AGENT_API

Ready = Callable[[], Awaitable[str]]
"""What is missing for studios to be started, in words; '' = nothing."""

_log = logging.getLogger(__name__)


class _StudioHost(AbstractRuleMatching):
    async def match(self, request: web.Request) -> bool:
        return STUDIO_HEADER in request.headers

    def get_info(self) -> _InfoDict:
        return {"domain": self.canonical}

    @property
    def canonical(self) -> str:
        return f"[{STUDIO_HEADER}]"


class _AgentCalls(AbstractRuleMatching):
    async def match(self, request: web.Request) -> bool:
        return request.path.startswith(AGENT_API + "/")

    def get_info(self) -> _InfoDict:
        return {"domain": self.canonical}

    @property
    def canonical(self) -> str:
        return f"[{AGENT_API}]"


def compose(
    pages: web.Application,
    api: web.Application,
    agent_routes: Iterable[web.RouteDef],
    studio_pages: StudioPages,
    ready: Ready,
) -> web.Application:
    """`pages` with the other faces mounted. The rules are asked in this order, before any path of the pages."""
    studio_host = web.Application()
    studio_host.router.add_route("*", "/{path:.*}", studio_pages.handle)
    _mount(pages, _StudioHost(), studio_host)
    agents = web.Application(middlewares=[_agents_get_json])
    agents.add_routes(agent_routes)
    _mount(pages, _AgentCalls(), agents)
    pages.add_subapp("/api", api)
    pages.router.add_get("/healthz", _healthy)
    pages.router.add_get("/readyz", _ready_door(ready))
    pages.on_shutdown.append(lambda _: studio_pages.close())
    return pages


def _mount(root: web.Application, rule: AbstractRuleMatching, app: web.Application) -> None:
    """As `add_domain`, for a rule of our own."""
    app.freeze()
    root.router.register_resource(MatchedSubAppResource(rule, app))


@web.middleware
async def _agents_get_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        return web.json_response({"message": f"{error.reason}: no such call"}, status=error.status)
    except Exception:
        _log.exception("a call of an agent failed: %s %s", request.method, request.path[:200])
        return web.json_response({"message": "Portico made a mistake here; its log says more."}, status=500)


async def _healthy(request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


def _ready_door(ready: Ready) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        missing = await ready()
        if missing:
            return web.json_response({"status": "not ready", "message": missing}, status=503)
        return web.json_response({"status": "ready"})

    return answer
