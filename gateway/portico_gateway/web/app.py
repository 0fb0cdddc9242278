"""The management host's pages put together."""

from aiohttp import hdrs, web

from portico_gateway.settings import Settings
from portico_gateway.studios.values import Studios
from portico_gateway.web.doors import Auth, People
from portico_gateway.web.live import Streams
from portico_gateway.web.pages import (
    account,
    add,
    checkpoints,
    edit,
    handover,
    logs,
    members,
    open,  # noqa: A004 - the page of that name
    sign_in,
    studio,
    studio_list,
)
from portico_gateway.web.pages.problems import SITE, problem_pages
from portico_gateway.web.rendering import Renderer
from portico_gateway.web.security import MAX_FORM, check_same_origin, harden, policy, studio_origins
from portico_gateway.web.site import Handler, Site
from portico_shared.clock import Clock

PAGES = (sign_in, handover, studio_list, add, open, studio, checkpoints, logs, edit, members, account)


def build_web(studios: Studios, auth: Auth, people: People, settings: Settings, clock: Clock) -> web.Application:
    """The application of the management host.

    The caller mounts what else lives on that host with `add_subapp` ('/api', say): requests there pass by the pages'
    own checks and error pages untouched. On shutdown the open event streams end first.
    """
    site = Site(studios, auth, people, settings, clock, Renderer(), Streams())
    app = web.Application(middlewares=[problem_pages, _same_origin_forms], client_max_size=MAX_FORM)
    app[SITE] = site
    for page in PAGES:
        app.add_routes(page.routes(site))
    app.router.add_get("/static/{name:.+}", _static)
    app.on_response_prepare.append(_headers)
    app.on_shutdown.append(_end_streams)
    return app


@web.middleware
async def _same_origin_forms(request: web.Request, handler: Handler) -> web.StreamResponse:
    own = request.match_info.apps[-1] is request.match_info.apps[0]
    if own and request.method not in (hdrs.METH_GET, hdrs.METH_HEAD):
        check_same_origin(request, request.app[SITE].settings.base_url)
    return await handler(request)


async def _static(request: web.Request) -> web.StreamResponse:
    try:
        return request.app[SITE].renderer.serve_static(request, request.match_info["name"])
    except KeyError:
        raise web.HTTPNotFound from None


async def _headers(request: web.Request, response: web.StreamResponse) -> None:
    if request.match_info.apps[-1] is request.match_info.apps[0]:
        harden(response, policy(studio_origins(request.match_info.apps[0][SITE].settings)))


async def _end_streams(app: web.Application) -> None:
    await app[SITE].streams.close()
