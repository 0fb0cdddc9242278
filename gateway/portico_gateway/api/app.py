"""The API as an aiohttp application, mounted by control under `/api`."""

import logging
from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web

from portico_gateway.api import administration, checkpoints, event_stream, openapi, people, studios
from portico_gateway.api.doors import Parts
from portico_gateway.api.requests import MAX_BODY, actor_of
from portico_gateway.api.table import Route, answer
from portico_gateway.auth.values import Actor, User
from portico_gateway.errors import Conflict, PorticoError

ROUTES: tuple[Route, ...] = (
    *people.ROUTES,
    *administration.ROUTES,
    *studios.ROUTES,
    *checkpoints.ROUTES,
    *event_stream.ROUTES,
)
NOBODY = Actor(User(0, "", ""), "")
_log = logging.getLogger(__name__)


def build_api(parts: Parts) -> web.Application:
    """Every route of the table, each behind the same check of who asks."""
    app = web.Application(middlewares=[_speak_json], client_max_size=MAX_BODY)
    app[event_stream.STREAMS] = streams = event_stream.EventStreams(parts)
    app.on_shutdown.append(streams.close)
    for route in ROUTES:
        handler = _bind(parts, route)
        app.router.add_route(route.method, route.path, handler)
        if route.method == hdrs.METH_GET and route.answer is not str:
            app.router.add_route(hdrs.METH_HEAD, route.path, handler)
    app.router.add_get("/openapi.json", _description)
    return app


def _bind(parts: Parts, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        actor = NOBODY if route.public else await actor_of(parts, request)
        try:
            return await route.handler(parts, request, actor)
        except Conflict as error:
            return answer({"message": error.message}, route.conflict)

    return handle


async def _description(request: web.Request) -> web.Response:
    return web.Response(body=openapi.describe(ROUTES), content_type="application/json")


@web.middleware
async def _speak_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Errors as `{"message"}` with the right status; never a traceback, never a page."""
    try:
        response = await handler(request)
    except PorticoError as error:
        response = answer({"message": error.message}, error.status)
        if error.status == 401:
            response.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    except web.HTTPException as error:
        response = answer({"message": _sentence(error)}, error.status)
        if hdrs.ALLOW in error.headers:
            response.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
    except Exception:
        _log.exception("the API failed on %s %r", request.method, request.path[:200])
        response = answer({"message": "Portico made a mistake here; its log says more. Nothing was changed."}, 500)
    if not response.prepared:
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers.setdefault("Cache-Control", "no-store")
    return response


def _sentence(error: web.HTTPException) -> str:
    if error.status == 404:
        return "no such address in the API; /api/openapi.json lists them"
    if error.status == 405:
        return "this address knows other methods; /api/openapi.json lists them"
    return f"{error.reason}"
