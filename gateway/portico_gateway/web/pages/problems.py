"""What went wrong, in a page: what happened, what is safe, what to do next."""

import logging

from aiohttp import web

from portico_gateway.errors import PorticoError
from portico_gateway.web import words
from portico_gateway.web.site import Handler, Site, find_visitor, show

TITLES = {
    400: "That cannot be done like this",
    401: "Please sign in",
    403: "Not for you",
    404: "Nothing here",
    405: "That cannot be done here",
    409: "Not just now",
    413: "Too much at once",
    429: "Too often",
    503: "A moment, please",
}

_log = logging.getLogger(__name__)


@web.middleware
async def problem_pages(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns errors into pages, for the web's own addresses; what is mounted beside it answers for itself."""
    site: Site = request.app[SITE]
    if request.match_info.apps[-1] is not request.match_info.apps[0]:
        return await handler(request)
    try:
        return await handler(request)
    except PorticoError as error:
        return await _page(site, request, error.status, error.message)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        response = await _page(site, request, error.status, _sentence(error.status))
        if (allowed := error.headers.get("Allow")) is not None:
            response.headers["Allow"] = allowed
        return response
    except ConnectionError:
        raise
    except Exception:
        _log.exception("%s %s failed", request.method, request.path)
        return await _page(site, request, 500, "Something in Portico failed; it is in Portico's log.")


SITE: web.AppKey[Site] = web.AppKey("site", Site)


def _sentence(status: int) -> str:
    return {
        404: "there is no page at this address",
        405: "this address does not take that kind of request",
        413: "what was sent is too large",
        503: "too much is going on just now; try again in a few seconds",
    }.get(status, "the request could not be understood")


async def _page(site: Site, request: web.Request, status: int, message: str) -> web.Response:
    try:
        visitor = await find_visitor(site, request)
    except PorticoError:
        visitor = None  # the store is away: the page is shown all the same
    return show(
        site,
        request,
        visitor,
        "problem.html",
        status=status,
        title=TITLES.get(status, "Something went wrong" if status >= 500 else "That did not work"),
        message=words.sentence(message),
        status_code=status,
    )
